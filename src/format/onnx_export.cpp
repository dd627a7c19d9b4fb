#include "format/onnx_export.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "base/text.h"
#include "format/onnx.h"
#include "format/onnx_terms.h"
#include "format/safetensors.h"
#include "op/contraction.h"
#include "op/elementwise.h"
#include "op/movement.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::Node;
using ir::Value;

namespace {

bool is_op(const Node& n, const ir::OpDef& op) { return n.op().name == op.name; }

const WriteRow* find_row(const Node& n) {
  for (const WriteRow& r : write_rows())
    if (r.op == n.op().name) return &r;
  return nullptr;
}

}  // namespace

bool is_broadcast(const Value& v) { return is_op(v.node(), op::broadcast_to_op); }

Writer::Writer(const ir::Graph& graph) : graph_(graph), g_(*model_.mutable_graph()) {
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const std::string& name = graph.input_name(i);
    if (name.empty()) throw UserError({"save_onnx", "an input has no name", "", "a name for every input"});
    taken_.insert(name);
    forms_[graph.inputs[i]].plain = name;
    *g_.add_input() = info_of(graph.inputs[i].type(), name);
  }
  for (const ir::Output& o : graph.outputs) {
    ++uses_[o.value];
    const std::string name = taken_.insert(o.name).second ? o.name : o.name + "#out";
    taken_.insert(name);
    *g_.add_output() = info_of(o.value.type(), name);
    if (!ir::is_input(o.value)) outputs_.emplace(o.value, name);
  }
  const std::vector<const Node*> nodes = graph.nodes();
  for (const Node* n : nodes)
    for (const Value& v : n->inputs()) ++uses_[v];
  for (const Node* n : nodes) {  // a convolution's bias
    if (!is_op(*n, op::add_op) || !is_broadcast(n->input(1))) continue;
    const Value& x = n->input(0);
    const Node& b = n->input(1).node();
    const bool channel = b.attrs<op::BroadcastAttrs>().axes == Ints{x.rank() - 1};
    if ((is_op(x.node(), op::conv_op) || is_op(x.node(), op::conv_data_grad_op)) && channel && uses(x) == 1) {
      bias_[&x.node()] = n;
      biased_[n] = &x.node();
    }
  }
}

int64_t Writer::uses(const Value& v) const {
  const auto it = uses_.find(v);
  return it == uses_.end() ? 0 : it->second;
}

const Node* Writer::bias_of(const Node& conv) const {
  const auto it = bias_.find(&conv);
  return it == bias_.end() ? nullptr : it->second;
}

std::string Writer::fresh(const std::string& base) {
  if (!base.empty() && taken_.insert(base).second) return base;
  return numbered(fmt::format("#{}{}", base, base.empty() ? "" : ":"));
}

std::string Writer::numbered(std::string_view mark) {
  for (;;)
    if (std::string name = fmt::format("{}{}", mark, ++next_); taken_.insert(name).second) return name;
}

std::string Writer::name_of(const Value& v, bool channels_first) {
  if (!channels_first)
    if (const auto it = outputs_.find(v); it != outputs_.end()) return it->second;
  const auto info = graph_.info.find(v->id());
  const bool known = info != graph_.info.end() && v.result() == 0 && !info->second.name.empty();
  return fresh(known ? info->second.name : ir::constant_name(v));
}

bool Writer::only_first(const Value& v) const {
  const auto it = forms_.find(v);
  return v.rank() >= 3 && it != forms_.end() && it->second.plain.empty() && !it->second.first.empty();
}

std::string Writer::plain(const Value& v) {
  if (std::string known = forms_[v].plain; !known.empty()) return known;
  if (only_first(v)) {
    attr(node("Transpose", {forms_[v].first}, v), "perm", to_last_perm(v.rank()));
  } else if (ir::constant_value(v)) {
    write_constant(v, false);
  } else {
    write_deferred(v);
  }
  return forms_[v].plain;
}

std::string Writer::first(const Value& v) {
  if (std::string known = forms_[v].first; !known.empty()) return known;
  if (ir::constant_value(v) && forms_[v].plain.empty()) write_constant(v, true);
  else attr(node("Transpose", {plain(v)}, v, true), "perm", to_first_perm(v.rank()));
  return forms_[v].first;
}

void Writer::write_constant(const Value& v, bool channels_first) {
  const Value stored = channels_first ? transposed(v, to_first_perm(v.rank())) : v;
  Forms& forms = forms_[v];
  std::string& name = channels_first ? forms.first : forms.plain;
  name = name_of(v, channels_first);
  *g_.add_initializer() = tensor_of(*ir::constant_value(stored), name);
}

/// A broadcast that no node takes in: Expand, after an Unsqueeze where axes are missing in between.
void Writer::write_deferred(const Value& v) {
  ESPALIER_CHECK(is_broadcast(v), "a value is written before it is made: " + std::string(v->op().name));
  const Value& x = v->input(0);
  const bool fixed = v.type().is_static();
  const Ints& axes = v->attrs<op::BroadcastAttrs>().axes;
  if (!fixed) return write_in_our_domain(v.node());
  std::string name = plain(x);
  if (axes.empty() || axes.back() - axes.front() + 1 != static_cast<int64_t>(axes.size()) ||
      axes.back() != v.rank() - 1) {
    Ints missing;
    for (int64_t i = axes.empty() ? v.rank() : 0; i < v.rank(); ++i)
      if (std::find(axes.begin(), axes.end(), i) == axes.end()) missing.push_back(i);
    if (!missing.empty()) {
      onnx::NodeProto& n = *g_.add_node();
      n.set_op_type("Unsqueeze");
      n.add_input(name);
      n.add_input(integers(missing));
      n.add_output(name = fresh(""));
    }
  }
  node("Expand", {name, integers(ir::static_dims(v.dims()))}, v);
}

std::string Writer::operand(const Value& v, bool channels_first) {
  const bool deferred = is_broadcast(v) && forms_[v].plain.empty() && forms_[v].first.empty();
  if (!deferred) return form(v, channels_first);
  const Value& x = v->input(0);
  const Ints& axes = v->attrs<op::BroadcastAttrs>().axes;
  if (axes.empty()) return plain(x);
  if (!channels_first && axes.front() == v.rank() - static_cast<int64_t>(axes.size())) return plain(x);
  Ints positions;  // as ONNX numbers the axes
  for (const int64_t a : axes)
    positions.push_back(!channels_first ? a : a == 0 ? 0 : a == v.rank() - 1 ? 1 : a + 1);
  if (!std::is_sorted(positions.begin(), positions.end())) return form(v, channels_first);
  Ints missing;  // after the first axis of x, ones
  for (int64_t p = positions.front() + 1; p < v.rank(); ++p)
    if (std::find(positions.begin(), positions.end(), p) == positions.end())
      missing.push_back(p - positions.front());
  if (missing.empty()) return plain(x);
  const std::string key = fmt::format("unsqueeze {} {} {}", x->id(), x.result(), join(missing));
  std::string& name = shared_[key];
  if (!name.empty()) return name;
  if (const Array* a = ir::constant_value(x);
      a && uses(x) == 1 && uses(v) == 1) {  // else its one copy is moved
    Ints dims = a->dims();
    for (const int64_t m : missing) dims.insert(dims.begin() + m, 1);
    name = name_of(x, true);
    *g_.add_initializer() = tensor_of(a->reshaped(dims), name);
    return name;
  }
  const std::string from = plain(x), axes_name = integers(missing);
  name = fresh("");
  onnx::NodeProto& n = *g_.add_node();
  n.set_op_type("Unsqueeze");
  n.add_input(from);
  n.add_input(axes_name);
  n.add_output(name);
  return name;
}

std::string Writer::initializer(const Array& array) {
  const std::string key(static_cast<const char*>(array.data()), static_cast<size_t>(array.bytes()));
  std::string& name = shared_[array.type().text() + " " + key];
  if (name.empty()) *g_.add_initializer() = tensor_of(array, name = fresh(""));
  return name;
}

std::string Writer::integers(const Ints& values) { return initializer(Array::list(values)); }

onnx::NodeProto& Writer::node(const std::string& op, std::vector<std::string> inputs, const Value& result,
                              bool channels_first) {
  const std::string name = name_of(result, channels_first);
  onnx::NodeProto& n = *g_.add_node();
  n.set_op_type(op);
  n.set_name(name);
  for (std::string& i : inputs) n.add_input(std::move(i));
  n.add_output(name);
  Forms& forms = forms_[result];
  (channels_first ? forms.first : forms.plain) = name;
  return n;
}

std::pair<onnx::NodeProto&, std::string> Writer::step(const std::string& op, std::vector<std::string> inputs,
                                                      std::string_view mark) {
  onnx::NodeProto& n = *g_.add_node();
  n.set_op_type(op);
  for (std::string& i : inputs) n.add_input(std::move(i));
  n.add_output(numbered(mark));
  return {n, n.output(0)};
}

static onnx::AttributeProto& add_attr(onnx::NodeProto& n, const std::string& name,
                                      onnx::AttributeProto::AttributeType type) {
  onnx::AttributeProto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(type);
  return a;
}
void Writer::attr(onnx::NodeProto& n, const std::string& name, int64_t v) {
  add_attr(n, name, onnx::AttributeProto::INT).set_i(v);
}
void Writer::attr(onnx::NodeProto& n, const std::string& name, double v) {
  add_attr(n, name, onnx::AttributeProto::FLOAT).set_f(static_cast<float>(v));
}
void Writer::attr(onnx::NodeProto& n, const std::string& name, const std::string& v) {
  add_attr(n, name, onnx::AttributeProto::STRING).set_s(v);
}
void Writer::attr(onnx::NodeProto& n, const std::string& name, const Ints& v) {
  onnx::AttributeProto& a = add_attr(n, name, onnx::AttributeProto::INTS);
  for (const int64_t i : v) a.add_ints(i);
}

void Writer::write_in_our_domain(const Node& n) {
  std::vector<std::string> inputs;
  for (const Value& v : n.inputs()) inputs.push_back(plain(v));
  onnx::NodeProto& out = *g_.add_node();
  out.set_domain(std::string(our_domain));
  out.set_op_type(std::string(n.op().name));
  for (std::string& i : inputs) out.add_input(std::move(i));
  for (int i = 0; i < n.results(); ++i) {
    const std::string name = uses(n.value(i)) > 0 ? name_of(n.value(i), false) : "";
    forms_[n.value(i)].plain = name;
    out.add_output(name);
  }
  std::string text;
  ir::ConstantPool pool;
  ir::FieldPrinter printer{text, &pool};
  n.attrs().print(printer);
  if (!text.empty()) attr(out, "attrs", text);
  if (pool.empty()) return;
  onnx::AttributeProto& a = add_attr(out, "pool", onnx::AttributeProto::TENSORS);
  for (const Array& array : pool) *a.add_tensors() = tensor_of(array, "");
}

void Writer::write_node(const Node& n) {
  if (n.op().kind == ir::Kind::leaf || is_broadcast(n.value())) return;
  if (bias_of(n)) return;  // written with its bias
  if (const auto it = biased_.find(&n); it != biased_.end()) {
    if (find_row(*it->second)->write(*this, *it->second)) return;
    write_in_our_domain(*it->second);
  }
  if (const WriteRow* row = find_row(n); row && row->write(*this, n)) return;
  write_in_our_domain(n);
}

onnx::ModelProto Writer::write() {
  model_.set_ir_version(8);
  model_.set_producer_name("espalier");
  auto* standard = model_.add_opset_import();
  standard->set_domain("");
  standard->set_version(written_opset);
  g_.set_name(graph_.name);
  for (const Node* n : graph_.nodes()) write_node(*n);
  for (size_t i = 0; i < graph_.outputs.size(); ++i) {
    const std::string& name = g_.output(static_cast<int>(i)).name();
    const std::string value = plain(graph_.outputs[i].value);
    if (value == name) continue;
    onnx::NodeProto& n = *g_.add_node();
    n.set_op_type("Identity");
    n.add_input(value);
    n.add_output(name);
  }
  if (std::any_of(g_.node().begin(), g_.node().end(),
                  [](const auto& n) { return n.domain() == our_domain; })) {
    auto* ours = model_.add_opset_import();
    ours->set_domain(std::string(our_domain));
    ours->set_version(1);
  }
  return std::move(model_);
}

namespace {

void add_metadata(onnx::ModelProto& model, const std::string& key, const std::string& value) {
  auto* p = model.add_metadata_props();
  p->set_key(key);
  p->set_value(value);
}

/// Initializers of more than a few elements move to FILE.safetensors, which the model names as external data.
void put_weights_beside(onnx::ModelProto& model, const std::filesystem::path& path) {
  constexpr size_t small = 1024;
  std::filesystem::path beside = path;
  beside += ".safetensors";
  TensorFile file;
  std::map<std::string, onnx::TensorProto*> moved;
  for (onnx::TensorProto& t : *model.mutable_graph()->mutable_initializer()) {
    if (t.raw_data().size() < small) continue;
    file.tensors.push_back({t.name(), array_of(t, {}, t.name())});
    t.clear_raw_data();
    moved[t.name()] = &t;
  }
  save_safetensors(beside, file);
  file.tensors.clear();
  const std::string head = [&] {
    const auto map = MappedFile::open(beside);
    return std::string(reinterpret_cast<const char*>(map->bytes().data()), 8);
  }();
  uint64_t header = 0;
  for (size_t i = 8; i-- > 0;) header = header << 8 | static_cast<unsigned char>(head[i]);
  uint64_t offset = 8 + header;
  for (const NamedTensor& t :
       load_safetensors(beside).tensors) {  // in the order of their bytes, without gaps
    onnx::TensorProto& proto = *moved.at(t.name);
    proto.set_data_location(onnx::TensorProto::EXTERNAL);
    for (const auto& [key, value] : {std::pair{"location", beside.filename().string()},
                                     {"offset", std::to_string(offset)},
                                     {"length", std::to_string(t.value.bytes())}}) {
      auto* entry = proto.add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    }
    offset += static_cast<uint64_t>(t.value.bytes());
  }
}

}  // namespace

static onnx::ModelProto model_of(const ir::Graph& graph, const std::map<std::string, std::string>& metadata) {
  if (graph.level != ir::Level::tensor)
    throw UserError({"save_onnx, graph " + graph.name, "the graph is of another level",
                     std::string(level_name(graph.level)), "tensor"});
  const ir::Graph said = in_onnx_terms(graph);
  onnx::ModelProto model = Writer(said).write();
  std::string state;
  for (const ir::StatePair& s : graph.state) state += quote(s.input) + " " + quote(s.output) + "\n";
  if (!state.empty()) add_metadata(model, "espalier.state", state);
  for (const auto& [key, value] : metadata) add_metadata(model, key, value);
  return model;
}

std::string onnx_bytes(const ir::Graph& graph, const std::map<std::string, std::string>& metadata) {
  return model_of(graph, metadata).SerializeAsString();
}

void save_onnx(const std::filesystem::path& path, const ir::Graph& graph, const OnnxSaveOptions& options) {
  onnx::ModelProto model = model_of(graph, options.metadata);
  int64_t bytes = 0;
  for (const onnx::TensorProto& t : model.graph().initializer())
    bytes += static_cast<int64_t>(t.raw_data().size());
  if (bytes > options.weights_beside_above) put_weights_beside(model, path);
  write_file(path, model.SerializeAsString());
}

}  // namespace espalier::format
