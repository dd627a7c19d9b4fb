// Libraries that tell a version and refuse everything else: of CUDA FAKE_CUDA.
#include <cstddef>

extern "C" {

int nvrtcVersion(int* major, int* minor) {
  *major = FAKE_CUDA;
  *minor = 3;
  return 0;
}

int nvrtcGetNumSupportedArchs() { return 7; }
int nvrtcGetSupportedArchs() { return 7; }
int nvrtcCreateProgram() { return 7; }
int nvrtcDestroyProgram() { return 7; }
int nvrtcCompileProgram() { return 7; }
int nvrtcGetProgramLogSize() { return 7; }
int nvrtcGetProgramLog() { return 7; }
int nvrtcGetCUBINSize() { return 7; }
int nvrtcGetCUBIN() { return 7; }
int nvrtcGetPTXSize() { return 7; }
int nvrtcGetPTX() { return 7; }

size_t cublasLtGetVersion() { return FAKE_CUDA * 10000 + 302; }
#define FAKE_LT(name) \
  int cublasLt##name() { return 1; }
FAKE_LT(GetStatusString)
FAKE_LT(Create)
FAKE_LT(Destroy)
FAKE_LT(MatmulDescCreate)
FAKE_LT(MatmulDescDestroy)
FAKE_LT(MatmulDescSetAttribute)
FAKE_LT(MatrixLayoutCreate)
FAKE_LT(MatrixLayoutDestroy)
FAKE_LT(MatrixLayoutSetAttribute)
FAKE_LT(MatmulPreferenceCreate)
FAKE_LT(MatmulPreferenceDestroy)
FAKE_LT(MatmulPreferenceSetAttribute)
FAKE_LT(MatmulAlgoGetHeuristic)
FAKE_LT(MatmulAlgoCheck)
FAKE_LT(Matmul)
size_t cudnnGetVersion() { return 91234; }
size_t cudnnGetCudartVersion() { return FAKE_CUDA * 1000; }

// What else cuDNN has; nobody calls them here.
#define NEVER_CALLED(name) \
  int name() { return 3000; }
NEVER_CALLED(cudnnGetErrorString)
NEVER_CALLED(cudnnGetLastErrorString)
NEVER_CALLED(cudnnCreate)
NEVER_CALLED(cudnnDestroy)
NEVER_CALLED(cudnnSetStream)
NEVER_CALLED(cudnnBackendCreateDescriptor)
NEVER_CALLED(cudnnBackendDestroyDescriptor)
NEVER_CALLED(cudnnBackendFinalize)
NEVER_CALLED(cudnnBackendSetAttribute)
NEVER_CALLED(cudnnBackendGetAttribute)
NEVER_CALLED(cudnnBackendExecute)

}  // extern "C"
