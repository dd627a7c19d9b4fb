#pragma once
// Inside of Tensor, for the files of tensor/ alone.
#include <atomic>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "ir/graph.h"
#include "tensor/tensor.h"

namespace espalier {

/// `value` is how the tensor was built; once it has `data`, new operations build on `leaf`, an input of its own. `parents` keep
/// alive what it was built from: the data to compute it by, then the way that gradients take through it. They are let go once
/// no gradient can be asked for below: see forget_unreachable.
struct Tensor::Impl {
  /// A parent, which counts how many children hold it: whoever holds it besides is outside the graph.
  class Edge {
   public:
    explicit Edge(std::shared_ptr<Impl> parent) : parent_(std::move(parent)) { ++parent_->children; }
    Edge(Edge&&) noexcept = default;
    Edge& operator=(Edge&&) = delete;
    ~Edge() {
      if (parent_) --parent_->children;
    }
    Impl& operator*() const { return *parent_; }
    const std::shared_ptr<Impl>& get() const { return parent_; }

   private:
    std::shared_ptr<Impl> parent_;
  };

  ir::Value value;
  std::mutex mutex;
  ir::Value leaf;
  std::optional<Array> data;
  std::vector<Edge> parents;
  std::atomic<long> children = 0;
  std::weak_ptr<void> parameter;  ///< the cell that this is a value of
  /// Computed tensors on the way to the first one, and how many there were when unreachable ones were last looked for.
  std::atomic<int64_t> depth = 0, searched = 0;
  ~Impl();
};

class TensorAccess {
 public:
  using Impl = Tensor::Impl;
  static std::shared_ptr<Impl> impl(const Tensor& t) { return (void)t.impl(), t.impl_; }
  static Tensor wrap(std::shared_ptr<Impl> impl) { return Tensor(std::move(impl)); }
  /// Known elements below `roots`, by the values that stand for them.
  static std::unordered_map<ir::Value, Array, ir::ValueHash> known_below(std::span<const Tensor> roots);
  static void set_data(const Tensor& t, Array data);
  /// Let the computed tensors from `t` down forget their parents where nothing below is held outside the graph or is a
  /// parameter's value: a gradient there can never be asked for.
  static void forget_unreachable(const Tensor& t);
  /// Say that `t` is a value of a parameter's cell: gradients may be asked for by that parameter as long as the cell lives.
  static void set_parameter(const Tensor& t, std::weak_ptr<void> cell) {
    t.impl().parameter = std::move(cell);
  }
};

/// `outputs` rebuilt with the mapped values in place; nothing above a mapped value is visited. Values that are not mapped
/// and reach no mapped one stay themselves.
std::vector<ir::Value> rebuild_over(std::span<const ir::Value> outputs, ir::ValueMap& map);
/// The input nodes that `outputs` need, stopping at values in `cut`, in order of first use.
std::vector<ir::Value> inputs_below(std::span<const ir::Value> outputs,
                                    const std::unordered_map<ir::Value, Array, ir::ValueHash>& cut);

}  // namespace espalier
