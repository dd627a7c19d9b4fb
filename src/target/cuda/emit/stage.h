#pragma once
// The stages of a nest in one thread: what all lanes share, then each lane, then what lanes store as one. Loads of neighbours
// are one access where alignment and guards allow it.
#include <string>
#include <vector>

#include "target/cuda/emit/scalar.h"
#include "target/cuda/emit/source.h"
#include "target/cuda/map/mapping.h"

namespace espalier::target::cuda {

class StagePrinter {
 public:
  StagePrinter(Source& out, const Mapping& mapping) : out_(out), m_(mapping) {}
  /// All stages at the outer point where the variables v0, v1, ... stand (the vector's variable as w3: its first lane).
  void stages();
  /// "int" or "long long": of variables and addresses.
  const char* index_type() const { return m_.wide_index ? "long long" : "int"; }
  /// A whole number of that type.
  std::string number(int64_t n) const;

 private:
  void stage(size_t index);
  void loops(size_t k);
  void body();
  void find_lane_dependence();
  bool is_block_of_lanes(const kernel::Instr& in) const;
  void instruction(size_t t);
  void vector_load(size_t t);
  void open_lanes();
  void close_lanes();

  Val value(const kernel::Instr& in, size_t t);
  std::string loaded(const kernel::Instr& in, size_t t);
  std::string affine(const kernel::Affine& a, bool first_lane) const;
  std::string address(const kernel::Instr& in, bool first_lane) const;
  std::string condition(const std::vector<kernel::Guard>& guards, bool first_lane) const;
  std::string guard(const kernel::Guard& g, bool first_lane) const;
  std::string lane() const { return m_.vector > 1 ? "[l]" : ""; }
  ir::Dtype operand_dtype(const kernel::Instr& in) const;
  bool is_on_lane(const kernel::Affine& a) const { return m_.vector > 1 && a.coef(m_.vector_var) != 0; }
  bool loads_as_vector(const kernel::Instr& in) const;
  bool stores_as_vector(const kernel::Store& st) const;

  void start_reductions();
  void accumulate(size_t r);
  std::string stored(const kernel::Store& st) const;

  const kernel::Stage& current() const { return m_.nest.stages[stage_]; }

  Source& out_;
  const Mapping& m_;
  size_t stage_ = 0;
  std::vector<char> on_lane_;  // of the stage's instructions
  std::vector<Val> values_;
};

}  // namespace espalier::target::cuda
