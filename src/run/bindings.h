#pragma once
// What callers bind to a program's inputs, checked: where it may lie, and that what a run writes is nothing else that it reads.
#include <utility>
#include <vector>

#include "run/program.h"

namespace espalier::run {

/// UserError: `address`, of a `what` ("input", "state") of that port, is null or no multiple of 64.
void check_binding(const Port& port, std::string_view what, uint64_t address);

/// Inputs that were bound since they were last checked. A program without states writes none of them, and has nothing to check.
class Bindings {
 public:
  explicit Bindings(const Program& program);

  /// Input `i` lies elsewhere now.
  void changed(size_t i) {
    if (!is_changed_.empty() && !std::exchange(is_changed_[i], true)) changed_.push_back(i);
  }
  /// `address(j)`: where input j lies; 0: nowhere yet, or where no caller's memory is. UserError: a state shares memory with another input.
  template <class Address>
  void check(const Program& program, const Address& address) {
    if (changed_.empty()) [[likely]]
      return;
    for (const size_t i : changed_) {
      if (program.is_state_input(i))
        for (size_t j = 0; j < is_changed_.size(); ++j) check(program, i, address(i), j, address(j));
      else
        for (const State& s : program.state())
          check(program, static_cast<size_t>(s.input), address(static_cast<size_t>(s.input)), i, address(i));
    }
    for (const size_t i : changed_) is_changed_[i] = false;
    changed_.clear();
  }

 private:
  static void check(const Program& program, size_t state, uint64_t state_at, size_t other,
                    uint64_t other_at) {
    const auto bytes = [&](size_t i) { return static_cast<uint64_t>(program.inputs()[i].bytes()); };
    if (state != other && bytes(state) > 0 && bytes(other) > 0 && state_at != 0 && other_at != 0 &&
        state_at < other_at + bytes(other) && other_at < state_at + bytes(state)) [[unlikely]]
      fail(program, state, other);
  }
  [[noreturn]] static void fail(const Program& program, size_t state, size_t other);

  std::vector<char> is_changed_;  ///< of each input; empty where there is nothing to check
  std::vector<size_t> changed_;
};

}  // namespace espalier::run
