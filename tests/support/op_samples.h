#pragma once
// Uses of ops made from the samples of their records.
#include <string>
#include <vector>

#include "ir/graph.h"
#include "op/table.h"

namespace espalier::test {

/// A graph of one node over inputs of the sample's types; outputs are the node's results.
inline ir::Graph graph_of(const ir::OpDef& op, const ir::Sample& sample) {
  ir::Graph g;
  g.name = std::string(op.name);
  std::vector<ir::Value> operands;
  for (size_t i = 0; i < sample.inputs.size(); ++i) {
    operands.push_back(ir::new_input("x" + std::to_string(i), sample.inputs[i].type()));
    g.inputs.push_back(operands.back());
  }
  const std::vector<ir::Value> results = make_all(op, operands, sample.attrs);
  for (size_t i = 0; i < results.size(); ++i) g.outputs.push_back({"y" + std::to_string(i), results[i]});
  return g;
}

/// The ops that have samples.
inline std::vector<const ir::OpDef*> sampled_ops() {
  std::vector<const ir::OpDef*> ops;
  for (const ir::OpDef* op : op::all_ops())
    if (op->sample) ops.push_back(op);
  return ops;
}

/// The dtypes in a set.
inline std::vector<ir::Dtype> dtypes_of(ir::DtypeSet set) {
  std::vector<ir::Dtype> out;
  for (int d = 0; d < ir::dtype_count; ++d)
    if (set.has(static_cast<ir::Dtype>(d))) out.push_back(static_cast<ir::Dtype>(d));
  return out;
}

/// A generator that every test run seeds alike.
inline ir::SampleRng rng_of(const ir::OpDef& op, uint64_t salt = 0) {
  uint64_t h = 1469598103934665603ull + salt;
  for (const char c : op.name) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return ir::SampleRng(h);
}

/// Name of a parameterised test.
struct OpName {
  template <class Info>
  std::string operator()(const Info& info) const {
    return std::string(info.param->name);
  }
};

}  // namespace espalier::test
