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
  StagePrinter(Source& out, const Mapping& mapping) : out_(out), m_(mapping) {
    for (const kernel::Buffer& b : m_.nest.buffers) widest_.push_back(ir::dtype_size(b.dtype));
  }
  /// All stages at the outer point where the variables v0, v1, ... stand (of several lanes, w3 is the first). Where threads share
  /// the point: `part` is the thread's number among them, `live` whether the point exists.
  void stages();
  /// The one stage of a transpose: the tile's loads, then everything else, at the tile that begins where the variables b0, b1, ... stand.
  void transposed();
  /// Of the shared arrays that were printed.
  int64_t shared_bytes() const { return shared_bytes_; }
  /// Bytes of the widest access to `buffer` that was printed.
  int64_t widest(int buffer) const { return widest_[static_cast<size_t>(buffer)]; }
  /// "int" or "long long": of variables and addresses.
  const char* index_type() const { return m_.wide_index ? "long long" : "int"; }
  /// A whole number of that type.
  std::string number(int64_t n) const;

 private:
  void stage(size_t index);
  void loops(size_t k);
  void split_loop(size_t k);
  void body();
  void find_lane_dependence();
  void find_fixed();
  bool is_fixed(const kernel::Instr& in) const;
  void compute_fixed();
  bool is_block_of_lanes(const kernel::Instr& in) const;
  void instruction(size_t t);
  void vector_load(size_t t);
  void tile_place(int fast, int lanes, int slow);
  void tile_load(size_t t);
  bool is_crossed(size_t t) const { return m_.scheme == Scheme::transpose && m_.tile.crossed[t]; }
  void open_lanes();
  void close_lanes();

  Val value(const kernel::Instr& in, size_t t);
  std::string loaded(const kernel::Instr& in, size_t t);
  std::string affine(const kernel::Affine& a, bool first_lane) const;
  std::string address(const kernel::Instr& in, bool first_lane) const;
  std::string condition(const std::vector<kernel::Guard>& guards, bool first_lane) const;
  std::string guard(const kernel::Guard& g, bool first_lane) const;
  /// Results of folds belong to lanes only where lanes are outer points.
  bool lanes_are_points() const { return m_.scheme != Scheme::rows && m_.vector > 1; }
  std::string lane() const { return lanes() > 1 ? "[l]" : ""; }
  int lanes() const { return map().lanes; }
  int lane_var() const { return map().lane_var; }
  const StageMap& map() const { return m_.stages[stage_]; }
  ir::Dtype operand_dtype(const kernel::Instr& in) const;
  bool is_on_lane(const kernel::Affine& a) const { return lanes() > 1 && a.coef(lane_var()) != 0; }
  bool loads_as_vector(const kernel::Instr& in) const;
  bool stores_as_vector(const kernel::Store& st) const;

  void start_reductions();
  void accumulate(size_t r);
  /// A fold's value and position: "a0_1" and "q0_1" with an index, and the statements that take another pair in.
  struct Pair {
    std::string value, position;
  };
  Pair accumulator(size_t r, const std::string& index) const;
  void take(size_t r, const Pair& into, const Pair& other);
  void take_in_order(size_t r, const Pair& into, const Pair& other, const std::string& other_first);
  void combine();
  void combine_lanes(size_t r);
  void combine_in_warp(size_t r, int threads);
  void combine_in_block(size_t r);
  void combine_columns(size_t r);
  void wait_before(size_t index);
  void accesses(int buffer, int lanes);
  void share(const char* type, const std::string& array, int64_t elements, int64_t bytes_of_one);
  std::string stored(const kernel::Store& st) const;

  const kernel::Stage& current() const { return m_.nest.stages[stage_]; }

  Source& out_;
  const Mapping& m_;
  size_t stage_ = 0;
  int64_t shared_bytes_ = 0;
  std::vector<int64_t> widest_;  // access to each buffer
  bool waited_ = true;           // since a thread of the group has read
  std::vector<char> on_lane_;    // of the stage's instructions
  std::vector<char>
      fixed_;  // of the stage's instructions: the same at every turn of its loops, and computed before them
  std::vector<char> kept_;        // those of them that the loops read,
  std::vector<Val> kept_values_;  // as "h0_7"
  std::vector<Val> values_;
};

}  // namespace espalier::target::cuda
