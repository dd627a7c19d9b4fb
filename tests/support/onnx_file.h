#pragma once
// ONNX files as other tools write them, a few bytes of protobuf at a time.
#include <cstring>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "ir/array.h"

namespace espalier::test::onnx {

using Attr = std::variant<int64_t, float, std::string, std::vector<int64_t>>;

inline std::string varint(uint64_t n) {
  std::string out;
  for (; n >= 128; n >>= 7) out += static_cast<char>(n | 128);
  return out + static_cast<char>(n);
}
inline std::string number(int field, int64_t v) {
  return varint(static_cast<uint64_t>(field) << 3) + varint(static_cast<uint64_t>(v));
}
inline std::string bytes(int field, const std::string& v) {
  return varint(static_cast<uint64_t>(field) << 3 | 2) + varint(v.size()) + v;
}

/// Elements are f32 (1) or i64 (7).
inline std::string tensor(const std::string& name, const ir::Array& a) {
  std::string out;
  for (const int64_t d : a.dims()) out += number(1, d);
  return out + number(2, a.dtype() == ir::Dtype::f32 ? 1 : 7) + bytes(8, name) +
         bytes(9, {static_cast<const char*>(a.data()), static_cast<size_t>(a.bytes())});
}

inline std::string attribute(const std::string& name, const Attr& v) {
  std::string out = bytes(1, name);
  if (const auto* i = std::get_if<int64_t>(&v)) return out + number(3, *i) + number(20, 2);
  if (const auto* f = std::get_if<float>(&v)) {
    char raw[4];
    std::memcpy(raw, f, 4);
    return out + varint(2 << 3 | 5) + std::string(raw, 4) + number(20, 1);
  }
  if (const auto* s = std::get_if<std::string>(&v)) return out + bytes(4, *s) + number(20, 3);
  for (const int64_t i : std::get<std::vector<int64_t>>(v)) out += number(8, i);
  return out + number(20, 7);
}

inline std::string node(const std::string& op, const std::vector<std::string>& inputs,
                        const std::vector<std::string>& outputs,
                        const std::map<std::string, Attr>& attrs = {}) {
  std::string out;
  for (const std::string& i : inputs) out += bytes(1, i);
  for (const std::string& o : outputs) out += bytes(2, o);
  out += bytes(4, op);
  for (const auto& [name, v] : attrs) out += bytes(5, attribute(name, v));
  return out;
}

/// A value's name and type: dims are numbers or names.
inline std::string info(const std::string& name, const std::vector<std::variant<int64_t, std::string>>& dims,
                        int dtype = 1) {
  std::string shape;
  for (const auto& d : dims)
    shape += bytes(1, std::holds_alternative<int64_t>(d) ? number(1, std::get<int64_t>(d))
                                                         : bytes(2, std::get<std::string>(d)));
  return bytes(1, name) + bytes(2, bytes(1, number(1, dtype) + bytes(2, shape)));
}

/// The bytes of a model of nodes, initializers, inputs and outputs, each as above.
inline std::string model(const std::vector<std::string>& nodes, const std::vector<std::string>& initializers,
                         const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
                         int64_t opset = 17) {
  std::string graph;
  for (const std::string& n : nodes) graph += bytes(1, n);
  graph += bytes(2, "g");
  for (const std::string& t : initializers) graph += bytes(5, t);
  for (const std::string& i : inputs) graph += bytes(11, i);
  for (const std::string& o : outputs) graph += bytes(12, o);
  return number(1, 8) + bytes(7, graph) + bytes(8, bytes(1, "") + number(2, opset));
}

}  // namespace espalier::test::onnx
