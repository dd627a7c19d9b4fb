// As much of libcuda.so.1 as the real cuDNN needs to plan for a device that it is told of: code can be "loaded", and nothing runs.
#include <cstddef>

namespace {
char library[64], kernel[64];
constexpr int not_supported = 801;
}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
int cuLibraryLoadData(void** loaded, const void*, void*, void**, unsigned, void*, void**, unsigned) {
  *loaded = library;
  return 0;
}
int cuLibraryUnload(void*) { return 0; }
int cuLibraryGetKernel(void** found, void*, const char*) {
  *found = kernel;
  return 0;
}
int cuKernelSetAttribute(int, int, void*, int) { return 0; }
int cuGetErrorString(int, const char** text) {
  *text = "there is no device";
  return 0;
}
int cuGetErrorName(int, const char** name) {
  *name = "NO_DEVICE";
  return 0;
}

// What cuDNN and NVRTC look up beside that.
#define REFUSES(name) \
  int name() { return not_supported; }
REFUSES(cuCtxGetCurrent)
REFUSES(cuCtxGetLimit)
REFUSES(cuCtxPopCurrent)
REFUSES(cuCtxPushCurrent)
REFUSES(cuDeviceGet)
REFUSES(cuDeviceGetCount)
REFUSES(cuGetExportTable)
REFUSES(cuGetProcAddress)
REFUSES(cuGetProcAddress_v2)
REFUSES(cuKernelGetAttribute)
REFUSES(cuKernelGetFunction)
REFUSES(cuLaunchCooperativeKernel)
REFUSES(cuLaunchKernel)
REFUSES(cuLaunchKernelEx)
REFUSES(cuLibraryLoadFromFile)
REFUSES(cuLinkAddData)
REFUSES(cuLinkComplete)
REFUSES(cuLinkCreate)
REFUSES(cuLinkDestroy)
REFUSES(cuOccupancyMaxPotentialClusterSize)
REFUSES(cuStreamGetCtx)

}  // extern "C"
