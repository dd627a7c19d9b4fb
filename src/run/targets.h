#pragma once
// Where a program can run, by name: the targets of this build, and the GPUs of this machine as "cuda" (the first) and "cuda:N".
#include <memory>
#include <span>
#include <string_view>

#include "base/export.h"
#include "target/interface.h"
#include "target/memory_account.h"

namespace espalier::run {

class OpenDevice;

struct NamedTarget {
  std::string_view name, doc;
  const target::Target& (*get)();
};

/// Every target of this build that runs on the host, the default one first.
ESPALIER_API std::span<const NamedTarget> targets();
/// The target of that name; UserError lists the names.
ESPALIER_API const target::Target& find_target(std::string_view name);
/// The first of targets().
ESPALIER_API const target::Target& default_target();
/// The number of a GPU's name ("cuda": 0), or -1 where it is none.
ESPALIER_API int gpu_number(std::string_view name);

/// Who plans a program, and the device that runs it, which keeps its planner.
struct Location {
  const target::Target* target = nullptr;
  std::shared_ptr<OpenDevice> device{};  ///< null: the host runs it
};
/// A target of the host, or a GPU with who plans for it: opened once in a process, for as long as someone uses it. UserError: no such name,
/// with all that there are; no GPU, with every place that was looked at; no GPU of that number; one too old. DeviceError where it cannot be
/// had.
Location find_location(std::string_view name);

/// What programs and parameters of this process have of a GPU's memory; nothing where it is not in use.
target::MemoryStatistics memory_of_gpu(int number);
/// The most that they may have, from now on; 0: no limit. UserError where it is negative.
void set_gpu_memory_limit(int number, int64_t bytes);

}  // namespace espalier::run
