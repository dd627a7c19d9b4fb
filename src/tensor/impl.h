#pragma once
// Inside of Tensor, for the files of tensor/ alone.
#include <mutex>
#include <optional>
#include <unordered_map>

#include "ir/graph.h"
#include "tensor/tensor.h"

namespace espalier {

/// `value` is how the tensor was built; once it has `data`, new operations build on `leaf`, an input of its own, so that old
/// graph can go. `parents` keep the data of what it was built from alive until then.
struct Tensor::Impl {
  ir::Value value;
  std::mutex mutex;
  ir::Value leaf;
  std::optional<Array> data;
  std::vector<std::shared_ptr<Impl>> parents;
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
};

/// `outputs` rebuilt with the mapped values in place; nothing above a mapped value is visited. Values that are not mapped
/// and reach no mapped one stay themselves.
std::vector<ir::Value> rebuild_over(std::span<const ir::Value> outputs, ir::ValueMap& map);
/// The input nodes that `outputs` need, stopping at values in `cut`, in order of first use.
std::vector<ir::Value> inputs_below(std::span<const ir::Value> outputs,
                                    const std::unordered_map<ir::Value, Array, ir::ValueHash>& cut);

}  // namespace espalier
