#pragma once
// Reading ONNX: a table with one row per ONNX op; a row's function turns one node into graph through the Use it is given.
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "format/onnx_proto.h"
#include "format/onnx_values.h"

namespace espalier::format {

inline constexpr int max_inputs = 1 << 20;

/// One node of a file while it is read: operands, attributes, and errors that name it.
class Use {
 public:
  Use(const onnx::NodeProto& node, int64_t opset, std::vector<Held> inputs, std::string file,
      const std::filesystem::path& folder);

  const std::string& op() const { return node_.op_type(); }
  int64_t opset() const { return opset_; }
  size_t inputs() const { return inputs_.size(); }
  size_t outputs() const { return static_cast<size_t>(node_.output_size()); }
  /// Is that result given a name?
  bool wants(size_t output) const;

  /// Is operand i given?
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i]; }
  /// The name of operand i in the file.
  std::string_view input_name(size_t i) const { return node_.input(static_cast<int>(i)); }
  /// Operand i; UserError where it is missing.
  const Held& held(size_t i) const;
  /// Operand i as it is stored; UserError for sizes that are symbolic.
  const Held& tensor(size_t i) const;
  ir::Dims dims(size_t i) const { return dims_of(held(i)); }
  int rank(size_t i) const { return static_cast<int>(dims(i).size()); }
  ir::Dtype dtype(size_t i) const;
  /// As ONNX sees it; UserError for sizes that are symbolic.
  ir::Value value(size_t i) const;
  /// Stored channels-last.
  ir::Value last(size_t i) const;
  /// The elements of operand i; UserError where they are not known before a run.
  ir::Array constant(size_t i) const;
  std::vector<int64_t> integers(size_t i) const;
  /// Integers that may be symbolic sizes.
  ir::Dims sizes(size_t i) const;
  /// A single element as a double.
  double number(size_t i) const;

  bool has_attr(const std::string& name) const;
  int64_t integer(const std::string& name, int64_t fallback);
  double real(const std::string& name, double fallback);
  std::string text(const std::string& name, const std::string& fallback);
  std::vector<int64_t> integers(const std::string& name, std::vector<int64_t> fallback);
  std::vector<double> reals(const std::string& name);
  std::vector<std::string> texts(const std::string& name);
  ir::Array array(const std::string& name);
  std::vector<ir::Array> arrays(const std::string& name);
  /// Read an attribute and let it be: it says nothing about the values.
  void ignore(const std::string& name) { read_.insert(name); }
  /// UserError where an attribute was not read.
  void finish() const;

  /// An axis counted from the end when negative; UserError outside [-rank, rank).
  int64_t axis(int64_t axis, int rank) const;
  std::vector<int64_t> axes(std::vector<int64_t> axes, int rank) const;
  [[noreturn]] void fail(std::string problem, std::string got = "", std::string allowed = "") const;
  const std::string& where() const { return where_; }

 private:
  const onnx::AttributeProto* find(const std::string& name, onnx::AttributeProto::AttributeType type);
  const onnx::NodeProto& node_;
  int64_t opset_;
  std::vector<Held> inputs_;
  std::string where_;
  const std::filesystem::path& folder_;
  std::set<std::string> read_;
};

using Results = std::vector<Held>;
using ReadFn = Results (*)(Use&);
/// One op of ONNX that we read.
struct ReadRow {
  std::string_view op;
  int64_t since, until;  ///< opsets, both inclusive
  int min_inputs, max_inputs;
  ReadFn read;
};
inline constexpr int64_t oldest_opset = 1, newest_opset = 28;
inline constexpr int64_t newest_ir_version = 14;  ///< of the file format itself

std::span<const ReadRow> math_rows();
std::span<const ReadRow> shape_rows();
std::span<const ReadRow> network_rows();
std::span<const ReadRow> reduce_rows();
std::span<const ReadRow> loss_rows();
std::span<const ReadRow> resize_rows();
std::span<const ReadRow> transformer_rows();

/// A node of our domain.
Results read_our_node(Use& use);
/// Integer arithmetic on symbolic sizes: for nodes that take them (Gather, Concat, Mul, ...); empty for other nodes.
Results read_sizes(Use& use);

/// Elementwise with NumPy's broadcasting, in the layout the operands have.
Held elementwise(std::span<const Held> in, const std::function<ir::Value(std::vector<ir::Value>)>& build);
/// The same for all operands of a node.
Results elementwise(const Use& use, const std::function<ir::Value(std::vector<ir::Value>)>& build);

}  // namespace espalier::format
