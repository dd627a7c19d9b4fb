#pragma once
// Writing ONNX: a table with one row per op of ours that ONNX has; a row's function writes one node through the Writer, or
// declines, and then the node is written in our own domain.
#include <map>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "format/onnx_proto.h"
#include "format/onnx_values.h"

namespace espalier::format {

/// The nodes of a file while it is written. Every value may stand in it in two forms: plain, and channels-first (of a
/// value stored channels-last); the form that lacks is made by a Transpose when it is asked for.
class Writer {
 public:
  explicit Writer(const ir::Graph& graph);
  onnx::ModelProto write();

  /// The name of a value's plain or channels-first form.
  std::string plain(const ir::Value& v);
  std::string first(const ir::Value& v);
  std::string form(const ir::Value& v, bool channels_first) { return channels_first ? first(v) : plain(v); }
  /// Is only the channels-first form there?
  bool only_first(const ir::Value& v) const;
  /// An operand of an elementwise node whose result has `dims`: what a broadcast would repeat is left to ONNX's rule.
  std::string operand(const ir::Value& v, bool channels_first);
  /// An initializer of ours (shapes, axes).
  std::string integers(const std::vector<int64_t>& values);
  std::string initializer(const ir::Array& array);

  /// A node that gives the value's form; the result is named and remembered.
  onnx::NodeProto& node(const std::string& op, std::vector<std::string> inputs, const ir::Value& result,
                        bool channels_first = false);
  /// A node whose result is no value of the graph, and that result's name: `mark` and a number.
  std::pair<onnx::NodeProto&, std::string> step(const std::string& op, std::vector<std::string> inputs,
                                                std::string_view mark = "#");
  void attr(onnx::NodeProto& n, const std::string& name, int64_t v);
  void attr(onnx::NodeProto& n, const std::string& name, double v);
  void attr(onnx::NodeProto& n, const std::string& name, const std::string& v);
  void attr(onnx::NodeProto& n, const std::string& name, const std::vector<int64_t>& v);

  /// How many nodes and outputs use a value.
  int64_t uses(const ir::Value& v) const;
  /// The addition of a channel vector that is a convolution's only use, and is written with it as its bias; or null.
  const ir::Node* bias_of(const ir::Node& conv) const;

 private:
  struct Forms {
    std::string plain, first;
  };
  std::string fresh(const std::string& base);
  std::string numbered(std::string_view mark);
  std::string name_of(const ir::Value& v, bool channels_first);
  void write_node(const ir::Node& n);
  void write_in_our_domain(const ir::Node& n);
  void write_deferred(const ir::Value& v);
  void write_constant(const ir::Value& v, bool channels_first);

  const ir::Graph& graph_;
  onnx::ModelProto model_;
  onnx::GraphProto& g_;
  std::unordered_map<ir::Value, Forms, ir::ValueHash> forms_;
  std::unordered_map<ir::Value, std::string, ir::ValueHash>
      outputs_;  ///< the name of the first output of a value
  std::unordered_map<ir::Value, int64_t, ir::ValueHash> uses_;
  std::unordered_map<const ir::Node*, const ir::Node*> bias_, biased_;  ///< convolution to addition, and back
  std::set<std::string> taken_;
  std::map<std::string, std::string> shared_;  ///< initializers of ours by content
  int64_t next_ = 0;
};

/// False where ONNX's op cannot say it.
using WriteFn = bool (*)(Writer&, const ir::Node&);
struct WriteRow {
  std::string_view op;  ///< ours
  WriteFn write;
};
std::span<const WriteRow> write_rows();

/// Can ONNX's node say this normalisation: its eps as an f32, its dtypes, its axes?
bool fits_norm(const ir::Node& n);
/// Is the value of rank 0, such a number repeated, or a known array without a name of one number?
bool is_one_number(const ir::Value& v);
/// Is the value a broadcast_to? Those are written only where an operand needs one.
bool is_broadcast(const ir::Value& v);

}  // namespace espalier::format
