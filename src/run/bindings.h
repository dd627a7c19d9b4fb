#pragma once
// What callers bind to a program's inputs and outputs, checked: where it may lie, and that what a run writes is nothing else of it.
#include <utility>
#include <vector>

#include "run/program.h"

namespace espalier::run {

/// UserError: `address`, of a `what` ("input", "state") of that port, is null (of an empty one it may be) or no multiple of 64.
void check_binding(const Port& port, std::string_view what, uint64_t address);
/// The same of output `o`, which is no state's, else UserError.
void check_output_binding(const Program& program, size_t o, uint64_t address);
/// UserError: the output is not where the executor has its own.
[[noreturn]] void fail_bound_output(const Program& program, size_t o);

/// Places that were bound since they were last checked: inputs by their number, then outputs.
class Bindings {
 public:
  explicit Bindings(const Program& program);

  /// That place lies elsewhere now.
  void changed(size_t place) {
    if (!std::exchange(is_changed_[place], true)) changed_.push_back(place);
  }
  size_t place_of_output(size_t o) const { return inputs_ + o; }
  /// `address(j)`: where place j lies; 0: nowhere yet, or where no caller's memory is, as for the outputs of states. UserError: a state or an output
  /// shares memory with another place.
  template <class Address>
  void check(const Program& program, const Address& address) {
    if (changed_.empty()) [[likely]]
      return;
    for (const size_t i : changed_) {
      if (is_written_[i])
        for (size_t j = 0; j < is_changed_.size(); ++j) check(program, i, address(i), j, address(j));
      else
        for (const size_t written : written_) check(program, written, address(written), i, address(i));
    }
    for (const size_t i : changed_) is_changed_[i] = false;
    changed_.clear();
  }

 private:
  const Port& port(const Program& program, size_t place) const {
    return place < inputs_ ? program.inputs()[place] : program.outputs()[place - inputs_];
  }
  void check(const Program& program, size_t written, uint64_t written_at, size_t other,
             uint64_t other_at) const {
    const auto bytes = [&](size_t place) { return static_cast<uint64_t>(port(program, place).bytes()); };
    if (written != other && written_at != 0 && other_at != 0 && bytes(written) > 0 && bytes(other) > 0 &&
        written_at < other_at + bytes(other) && other_at < written_at + bytes(written)) [[unlikely]]
      fail(program, written, other);
  }
  [[noreturn]] void fail(const Program& program, size_t written, size_t other) const;

  size_t inputs_;
  std::vector<char> is_changed_, is_written_;  ///< of each place
  std::vector<size_t> changed_, written_;
};

}  // namespace espalier::run
