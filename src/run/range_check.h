#pragma once
// Declared ranges of a program's inputs, resolved: checked on the host before a run.
#include <string>
#include <vector>

#include "run/program.h"

namespace espalier::run {

struct RangeCheck {
  size_t input;
  int64_t count, low, high;
  ir::Dtype dtype;

  /// UserError with the first element of `data` outside the range of the input of that name.
  void operator()(const void* data, const std::string& name) const;
};

std::vector<RangeCheck> range_checks(const Program& program);

}  // namespace espalier::run
