// Libraries that tell a version and do nothing else: of CUDA FAKE_CUDA.
#include <cstddef>

extern "C" {

int nvrtcVersion(int* major, int* minor) {
  *major = FAKE_CUDA;
  *minor = 3;
  return 0;
}

size_t cublasLtGetVersion() { return FAKE_CUDA * 10000 + 302; }
size_t cudnnGetVersion() { return 91234; }
size_t cudnnGetCudartVersion() { return FAKE_CUDA * 1000; }

}  // extern "C"
