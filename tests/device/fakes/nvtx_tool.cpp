// A tool that attaches through NVTX and notes the ranges of the process: "(name" where one begins, ")" where one ends. FAKE_NVTX_LOG names
// a file that they are appended to.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace {

std::mutex one;
std::string noted;

void note(const std::string& what) {
  const std::lock_guard lock(one);
  noted += what;
  if (const char* path = std::getenv("FAKE_NVTX_LOG"))
    if (std::FILE* f = std::fopen(path, "a")) {
      std::fputs(what.c_str(), f);
      std::fclose(f);
    }
}

int push(const char* name) {
  note("(" + std::string(name));
  return 0;
}
int pop() {
  note(")");
  return 0;
}

using Function = void (*)();
struct Callbacks {
  size_t bytes;
  int (*table)(int module, Function*** table, unsigned* size);
};
struct Version {
  size_t bytes;
  uint32_t version, reserved;
  void (*set)(uint32_t);
};

}  // namespace

extern "C" {

int InitializeInjectionNvtx2(const void* (*get)(uint32_t)) {
  if (std::getenv("FAKE_NVTX_REFUSES")) return 0;
  const auto* version = static_cast<const Version*>(get(3));
  const auto* callbacks = static_cast<const Callbacks*>(get(1));
  if (!version || version->bytes < sizeof(Version) || version->version != 3 || get(2)) return 0;
  version->set(3);
  if (!callbacks || callbacks->bytes < sizeof(Callbacks)) return 0;
  Function** table = nullptr;
  unsigned size = 0;
  for (int module = 1; module <= 6; ++module)
    if (!callbacks->table(module, &table, &size) || !table || table[0] || !table[size - 1] || table[size])
      return 0;
  if (callbacks->table(7, &table, &size)) return 0;
  if (!callbacks->table(1, &table, &size) || size < 12) return 0;
  *table[9] = reinterpret_cast<Function>(push);
  *table[11] = reinterpret_cast<Function>(pop);
  return 1;
}

/// What was noted so far.
const char* fake_nvtx_noted() {
  const std::lock_guard lock(one);
  static std::string copy;
  copy = noted;
  return copy.c_str();
}
}
