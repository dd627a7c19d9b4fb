#pragma once
// From the steps of a program to calls over a table of pointers: what an executor and a nested program share.
#include <span>
#include <vector>

#include "base/align.h"
#include "base/threads.h"
#include "run/program.h"

namespace espalier::run {

/// A step with everything resolved.
struct Call {
  const target::Kernel* kernel;
  void* const* buffers;
  void* scratch;
  int64_t chunks;
};

inline void run(const Call& call) {
  if (call.chunks == 1) {
    call.kernel->run(call.buffers, call.scratch, 0);
    return;
  }
  parallel_chunks(
      call.chunks,
      [](void* context, int64_t chunk) {
        const Call& c = *static_cast<const Call*>(context);
        c.kernel->run(c.buffers, c.scratch, chunk);
      },
      const_cast<Call*>(&call));
}

/// Where a body's arena begins in the scratch of its step; before those of a while_loop lies its flag.
inline constexpr int64_t frame_alignment = 256, flag_bytes = 256;

/// Where the pointers of a program's steps come from. Immutable once made; it reads the program's kernels and constants, which
/// must stay alive.
class Wiring {
 public:
  explicit Wiring(const Program& program);

  /// How many pointers the table has.
  size_t pointers() const { return pointers_; }
  size_t steps() const { return calls_.size(); }
  /// The arena, and the arena with the table behind it: what a body needs as scratch. Whole pieces, so that what follows is aligned.
  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t frame_bytes() const {
    return arena_bytes_ + round_up(static_cast<int64_t>(pointers_ * sizeof(void*)), frame_alignment);
  }
  /// Fill `table` with what lies in the arena and with constants, which lie where `constants` says, one address for each of the
  /// program's; slots are left as they are.
  void wire(void** table, char* arena, std::span<void* const> constants) const;
  /// With the constants where the program has them.
  void wire(void** table, char* arena) const { wire(table, arena, constants_); }
  /// Where the buffers of step `s` begin in the table, and its scratch in the arena (-1: none).
  size_t first_buffer(size_t s) const { return calls_[s].first; }
  int64_t scratch(size_t s) const { return calls_[s].scratch; }
  /// Step `s` over a table and an arena.
  Call call(size_t s, void* const* table, char* arena) const {
    const Planned& p = calls_[s];
    return {p.kernel, table + p.first, p.scratch < 0 ? nullptr : arena + p.scratch, p.chunks};
  }
  std::vector<Call> calls(void* const* table, char* arena) const;
  /// The same where each buffer of the arena lies anywhere: `place(offset)`, where the one that begins there does.
  template <class Place>
  void wire_places(void** table, const Place& place, std::span<void* const> constants) const {
    for (const InArena& a : in_arena_) table[a.at] = place(a.offset);
    for (const ToConstant& c : to_constant_) table[c.at] = constants[c.constant];
    for (const size_t at : nowhere_) table[at] = nullptr;
  }
  void bind_input(void** table, size_t i, void* data) const {
    for (const size_t at : input_uses_[i]) table[at] = data;
  }
  void bind_output(void** table, size_t o, void* data) const {
    for (const size_t at : output_uses_[o]) table[at] = data;
  }

 private:
  struct Planned {
    const target::Kernel* kernel;
    size_t first;     ///< in the table
    int64_t scratch;  ///< in the arena, or -1
    int64_t chunks;
  };
  struct InArena {
    size_t at;
    int64_t offset;
  };
  struct ToConstant {
    size_t at, constant;
  };

  int64_t arena_bytes_;
  size_t pointers_ = 0;
  std::vector<Planned> calls_;
  std::vector<InArena> in_arena_;
  std::vector<ToConstant> to_constant_;
  std::vector<size_t> nowhere_;
  std::vector<void*> constants_;
  std::vector<std::vector<size_t>> input_uses_, output_uses_;  ///< places in the table
};

}  // namespace espalier::run
