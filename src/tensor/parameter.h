#pragma once
// Parameter: a named mutable cell of elements. Reading one inside a compiled function makes it an input of the program;
// assigning to one makes it a state output, updated in place. All programs that use a parameter share its storage.
#include <functional>
#include <string>

#include "tensor/tensor.h"

namespace espalier {

class ESPALIER_API Parameter {
 public:
  Parameter() = default;  ///< none
  /// A cell that holds a copy of `initial`; trainable ones get gradients and optimiser updates.
  explicit Parameter(Array initial, bool trainable = true, std::string name = "");

  explicit operator bool() const { return cell_ != nullptr; }
  /// Its value here: inside a traced function the current value in the trace, else a copy of the elements, which is one
  /// tensor as long as they stay the same: gradients of what was computed from it can be asked for by the next read.
  Tensor tensor() const;
  operator Tensor() const { return tensor(); }  // NOLINT: a parameter reads as a tensor
  /// Give it a new value of the same type (UserError otherwise). Traced: a state output; else: computed and copied in now.
  void assign(const Tensor& value) const;

  const std::string& name() const;
  void set_name(std::string name) const;
  bool trainable() const;
  void set_trainable(bool trainable) const;
  ir::Type type() const;
  const std::vector<int64_t>& dims() const;
  /// The elements, fetched first where a device has newer ones; valid as long as any copy of this Parameter lives, and present until
  /// the next run of a program that writes them. DeviceError: from the device.
  const Array& storage() const;
  /// The same elements, to be written to now, while no program runs; programs on devices see what was written when they run next.
  void* write() const;
  /// Same cell?
  bool operator==(const Parameter& o) const { return cell_ == o.cell_; }

  struct Cell;
  Cell* cell() const { return cell_.get(); }

 private:
  friend class Tracing;
  std::shared_ptr<Cell> cell_;
};

/// Calls `visit` with every parameter of a layer, named by its path ("encoder.conv1.weight").
using ParameterVisitor = std::function<void(const std::string& path, Parameter& parameter)>;

/// All parameters of a layer or model (anything with `void each(const ParameterVisitor&, const std::string& prefix)`), with
/// their names set to their paths.
template <class Layer>
std::vector<Parameter> parameters_of(Layer& layer, const std::string& prefix = "") {
  std::vector<Parameter> all;
  layer.each(
      [&](const std::string& path, Parameter& p) {
        p.set_name(path);
        all.push_back(p);
      },
      prefix);
  return all;
}

/// "prefix.name", or "name" for an empty prefix.
ESPALIER_API std::string join_path(const std::string& prefix, const std::string& name);

}  // namespace espalier
