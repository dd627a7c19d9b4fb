#pragma once
// The stages of a nest at one point of the outer loops: for a grid of rows (a tile) and vectors.
#include <array>
#include <map>
#include <string>
#include <vector>

#include "target/cpu/emit/scalar_ops.h"
#include "target/cpu/emit/schedule.h"

namespace espalier::target::cpu {

/// Rows of the tile and vectors side by side; `last` lanes of the last vector are alive (0: all).
struct Grid {
  int rows = 1, vectors = 1, last = 0;
};

class StageEmitter {
 public:
  /// `at` holds the scalar i64 of every outer variable (of the first row and the first lane), and gets those of the stages' loops.
  StageEmitter(IrWriter& writer, const Schedule& schedule, const CpuFeatures& features, std::vector<Val>& at)
      : w_(writer), s_(schedule), ops_(writer, features), at_(at) {}

  void set_buffers(std::vector<Val> buffers) { buffers_ = std::move(buffers); }
  /// All stages for the grid that starts where `at` stands.
  void point(Grid grid);

 private:
  struct Accumulator {
    Val value, position;  ///< slots
  };
  struct Depends {
    bool on_row = false, on_vector = false;
  };

  void stage(size_t index);
  void loops(size_t k);
  void own_vectors();
  void body();
  void find_dependencies();

  // Values.
  Val eval(int t, int row, int vector);
  Val eval_new(const kernel::Instr& in, int row, int vector);
  Val load(const kernel::Instr& in, int row, int vector);
  Val index_value(const kernel::Affine& a, int row, int vector, bool wide);
  Val affine(const kernel::Affine& a, int row, int vector);
  Val guarded(const std::vector<kernel::Guard>& guards, int row, int vector, bool on_vector, Val mask);
  Val guard_lanes(const kernel::Guard& g, int row, int vector);
  Val indirect_offset(const kernel::Instr& in, int row, int vector);
  void store(const kernel::Store& st, int row, int vector);
  Val zeros();
  Val lane_mask(int vector);
  Val operand_of_store(const kernel::Store& st, int row, int vector);
  bool moves(const kernel::Affine& a) const { return vector_ >= 0 && a.coef(vector_) != 0; }
  ir::Dtype operand_dtype(const kernel::Instr& in) const;
  void find_brief();

  // Reductions.
  Accumulator& accumulator(size_t r, int row, int vector);
  void start_reductions();
  void accumulate(size_t r, int row, int vector);
  void finish_reductions();
  void finish(size_t r, int row);
  IrType position_type(const kernel::Reduction& r) const;
  Val last_position(const kernel::Reduction& r) const;
  int shared_extreme(size_t r) const;
  Val identity(const kernel::Reduction& r, int lanes) const;
  /// (value, position) combined; positions only for argmax and argmin.
  std::array<Val, 2> combine(const kernel::Reduction& r, const std::array<Val, 2>& a,
                             const std::array<Val, 2>& b);
  std::array<Val, 2> fold_lanes(const kernel::Reduction& r, std::array<Val, 2> v);

  const kernel::Stage& current() const { return s_.nest.stages[stage_]; }

  IrWriter& w_;
  const Schedule& s_;
  ScalarOps ops_;
  std::vector<Val>& at_;
  std::vector<Val> buffers_;
  Val zeros_;

  Grid grid_;
  size_t stage_ = 0;
  int vector_ = -1;          // the variable across the lanes in this stage
  bool own_vector_ = false;  // it is the stage's own, reduced across lanes at the end
  int lanes_ = 1;            // of accumulators in this stage
  std::vector<Depends> depends_;
  std::vector<char> brief_;
  std::map<std::array<int, 3>, Val> memo_;
  std::map<std::array<int, 3>, Accumulator> accumulators_;
  std::map<std::array<int, 4>, Val> results_;  // stage, reduction, row, vector
};

}  // namespace espalier::target::cpu
