#include "target/cpu/emit/emit_nest.h"

#include <array>
#include <map>

#include "target/cpu/emit/emit_stage.h"
#include "target/cpu/jit/compile_ir.h"

namespace espalier::target::cpu {

using kernel::LoopNest;
using kernel::Role;

namespace {

/// The loops around the stages: units of a chunk, sequential loops, tiles, vectors.
class NestEmitter {
 public:
  NestEmitter(const Schedule& s, const CpuFeatures& features)
      : s_(s), features_(features), w_(s.lanes), at_(s.nest.extents.size()), stages_(w_, s, features, at_) {}

  std::string run() {
    emit_body();
    emit_entry();
    return module_header() + w_.module_text() + "attributes #0 = { nounwind " + target_attributes(features_) +
           " }\n" + "attributes #1 = { nounwind willreturn memory(none) }\n";
  }

 private:
  static Val number(int64_t n) { return IrWriter::integer(ir_i64, n); }

  bool is_passed(size_t buffer) const { return s_.nest.buffers[buffer].role != Role::local; }

  /// May another buffer be the same memory? Then nothing is promised about this one.
  bool may_be_shared(size_t buffer) const { return s_.shared[buffer] != 0; }

  /// The C entry: buffer addresses out of the array, the chunk's range of units.
  void emit_entry() {
    w_.begin_function("void @kernel(ptr %buffers, i64 %chunk) #0");
    const Val buffers{"%buffers", ir_ptr}, chunk{"%chunk", ir_i64};
    std::string arguments;
    for (size_t i = 0; i < s_.nest.buffers.size(); ++i) {
      if (!is_passed(i)) continue;
      arguments += "ptr " +
                   w_.load(w_.offset(buffers, ir_ptr, number(static_cast<int64_t>(i))), ir_ptr, 8).name +
                   ", ";
    }
    const Val begin = w_.binary("mul", chunk, number(s_.units_per_chunk));
    const Val end =
        w_.intrinsic("llvm.smin", {w_.binary("add", begin, number(s_.units_per_chunk)), number(s_.units)});
    w_.raw("call void @body(" + arguments + "i64 " + begin.name + ", i64 " + end.name + ")");
    w_.end_function();
  }

  void emit_body() {
    std::string parameters;
    std::vector<Val> buffers;
    for (size_t i = 0; i < s_.nest.buffers.size(); ++i) {
      const std::string name = "%b" + std::to_string(i);
      buffers.push_back({name, ir_ptr});
      if (is_passed(i))
        parameters += std::string("ptr ") + (may_be_shared(i) ? "" : "noalias ") + name + ", ";
    }
    w_.begin_function("internal void @body(" + parameters + "i64 %begin, i64 %end) #0");
    stages_.set_buffers(std::move(buffers));
    w_.loop({"%begin", ir_i64}, {"%end", ir_i64}, 1, true, [&](Val unit) {
      decode(std::move(unit));
      sequential(0);
    });
    w_.end_function();
  }

  /// The unit's number is a mixed-radix number: parallel variables, then the block of the vector's variable.
  void decode(Val unit) {
    const auto digit = [&](int64_t radix, bool last) {
      if (radix == 1) return number(0);
      if (last) return unit;
      Val d = w_.binary("urem", unit, number(radix));
      unit = w_.binary("udiv", unit, number(radix));
      return d;
    };
    block_ = digit(s_.blocks(), s_.parallel.empty());
    for (size_t i = s_.parallel.size(); i-- > 0;)
      set(s_.parallel[i], digit(s_.trips(s_.parallel[i]), i == 0));
  }

  void set(int var, const Val& trip) {
    Val& value = at_[static_cast<size_t>(var)];
    if (var != s_.tile_var) {
      value = trip;
      return;
    }
    tile_ = trip;
    value = w_.binary("mul", trip, number(s_.tile));
  }

  void sequential(size_t k) {
    if (k == s_.sequential.size()) return tile();
    const int var = s_.sequential[k];
    w_.loop(number(0), number(s_.trips(var)), 1, true, [&](const Val& trip) {
      set(var, trip);
      sequential(k + 1);
    });
  }

  void tile() {
    if (s_.tile_var < 0) return vectors(1);
    const int64_t whole = s_.nest.extent(s_.tile_var) / s_.tile, rest = s_.nest.extent(s_.tile_var) % s_.tile;
    if (rest == 0) return vectors(s_.tile);
    w_.if_else(
        w_.icmp("slt", tile_, number(whole)), [&] { vectors(s_.tile); },
        [&] { vectors(static_cast<int>(rest)); });
  }

  void vectors(int rows) {
    if (s_.vector_var < 0) return stages_.point({rows, 1, 0});
    const int64_t extent = s_.nest.extent(s_.vector_var), step = int64_t{s_.lanes} * s_.unroll,
                  whole = extent / step * step;
    Val& at = at_[static_cast<size_t>(s_.vector_var)];
    const auto full = [&](const Val& i) {
      at = i;
      stages_.point({rows, s_.unroll, 0});
    };
    const auto rest = [&] {
      const int64_t left = extent - whole;
      at = number(whole);
      stages_.point(
          {rows, static_cast<int>((left + s_.lanes - 1) / s_.lanes), static_cast<int>(left % s_.lanes)});
    };
    if (s_.blocks() == 1) {
      if (whole == step) full(number(0));
      else if (whole > 0) w_.loop(number(0), number(whole), step, true, full);
      if (whole < extent) rest();
      return;
    }
    const Val begin = w_.binary("mul", block_, number(s_.vector_block));
    const Val end =
        w_.intrinsic("llvm.smin", {w_.binary("add", begin, number(s_.vector_block)), number(whole)});
    w_.loop(begin, end, step, false, full);
    if (whole < extent) w_.if_else(w_.icmp("eq", block_, number(s_.blocks() - 1)), rest);
  }

  const Schedule& s_;
  const CpuFeatures& features_;
  IrWriter w_;
  std::vector<Val> at_;  // where each variable stands
  StageEmitter stages_;
  Val block_, tile_;
};

}  // namespace

std::string emit_ir(const Schedule& schedule, const CpuFeatures& features) {
  return NestEmitter(schedule, features).run();
}

}  // namespace espalier::target::cpu
