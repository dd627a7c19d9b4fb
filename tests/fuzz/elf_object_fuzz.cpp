// Objects come from a cache on disk: the loader must refuse any bytes that are not an object, and never crash.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "target/cpu/jit/elf_loader.h"
#include "target/cpu/jit/math_symbols.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace espalier;
  try {
    target::cpu::LoadedObject::load(std::as_bytes(std::span(data, size)), target::cpu::kernel_symbols());
  } catch (const UserError&) {
  }
  return 0;
}
