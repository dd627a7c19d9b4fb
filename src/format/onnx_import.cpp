#include "format/onnx_import.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "base/text.h"
#include "format/onnx.h"
#include "format/onnx_terms.h"
#include "op/axes.h"
#include "op/movement.h"
#include "op/table.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::Dims;
using ir::Value;
using onnx::AttributeProto;

Use::Use(const onnx::NodeProto& node, int64_t opset, std::vector<Held> inputs, std::string file,
         const std::filesystem::path& folder)
    : node_(node), opset_(opset), inputs_(std::move(inputs)), folder_(folder) {
  const std::string name = !node.name().empty() ? node.name() : node.output_size() > 0 ? node.output(0) : "";
  where_ = fmt::format("{}, node {}, op {}{} (opset {})", file, quote(name),
                       node.domain().empty() ? "" : node.domain() + ":", node.op_type(), opset);
}

bool Use::wants(size_t output) const {
  return output < outputs() && !node_.output(static_cast<int>(output)).empty();
}

const Held& Use::held(size_t i) const {
  if (!has(i)) fail(fmt::format("input {} is missing", i));
  return inputs_[i];
}

ir::Dtype Use::dtype(size_t i) const { return held(i).value ? held(i).value.dtype() : ir::Dtype::i64; }

const Held& Use::tensor(size_t i) const {
  const Held& h = held(i);
  if (!h.value)
    fail(fmt::format("input {} is a symbolic size", i), dims_text(*h.sizes),
         "sizes that are bound when loading");
  return h;
}

Value Use::value(size_t i) const { return plain(tensor(i)); }

Value Use::last(size_t i) const {
  if (rank(i) < 3)
    fail(fmt::format("input {} has too few axes", i), dims_text(dims(i)), "N, C and 1 to 3 spatial axes");
  return stored_last(tensor(i));
}

Array Use::constant(size_t i) const {
  const Value v = value(i);  // may be made here and end here
  const Array* a = ir::constant_value(v);
  if (!a)
    fail(fmt::format("input {} is not known before a run", i), "",
         "a constant, an initializer or what is computed from them");
  return *a;
}

std::vector<int64_t> Use::integers(size_t i) const {
  const Array a = constant(i);
  if (!is_integer(a.dtype()))
    fail(fmt::format("input {} holds no integers", i), a.type().text(), "i64 or i32");
  const Array wide = a.cast(ir::Dtype::i64);
  return {wide.data<int64_t>(), wide.data<int64_t>() + wide.size()};
}

Dims Use::sizes(size_t i) const {
  if (held(i).sizes) return *held(i).sizes;
  return ir::to_dims(integers(i));
}

double Use::number(size_t i) const {
  const Array a = constant(i);
  if (a.size() != 1) fail(fmt::format("input {} is no single number", i), a.type().text(), "one element");
  return a.at(0);
}

const AttributeProto* Use::find(const std::string& name, AttributeProto::AttributeType type) {
  read_.insert(name);
  for (const AttributeProto& a : node_.attribute()) {
    if (a.name() != name) continue;
    if (a.type() != type)
      fail("attribute " + name + " is of another type", AttributeProto::AttributeType_Name(a.type()),
           AttributeProto::AttributeType_Name(type));
    return &a;
  }
  return nullptr;
}

bool Use::has_attr(const std::string& name) const {
  return std::any_of(node_.attribute().begin(), node_.attribute().end(),
                     [&](const auto& a) { return a.name() == name; });
}
int64_t Use::integer(const std::string& name, int64_t fallback) {
  const auto* a = find(name, AttributeProto::INT);
  return a ? a->i() : fallback;
}
double Use::real(const std::string& name, double fallback) {
  const auto* a = find(name, AttributeProto::FLOAT);
  return a ? widen(a->f()) : fallback;
}
std::string Use::text(const std::string& name, const std::string& fallback) {
  const auto* a = find(name, AttributeProto::STRING);
  return a ? a->s() : fallback;
}
std::vector<int64_t> Use::integers(const std::string& name, std::vector<int64_t> fallback) {
  const auto* a = find(name, AttributeProto::INTS);
  return a ? std::vector<int64_t>(a->ints().begin(), a->ints().end()) : std::move(fallback);
}
std::vector<double> Use::reals(const std::string& name) {
  const auto* a = find(name, AttributeProto::FLOATS);
  return a ? std::vector<double>(a->floats().begin(), a->floats().end()) : std::vector<double>{};
}
std::vector<std::string> Use::texts(const std::string& name) {
  const auto* a = find(name, AttributeProto::STRINGS);
  return a ? std::vector<std::string>(a->strings().begin(), a->strings().end()) : std::vector<std::string>{};
}
Array Use::array(const std::string& name) {
  const auto* a = find(name, AttributeProto::TENSOR);
  if (!a) fail("attribute " + name + " is missing");
  return array_of(a->t(), folder_, where_ + ", attribute " + name);
}
std::vector<Array> Use::arrays(const std::string& name) {
  std::vector<Array> out;
  if (const auto* a = find(name, AttributeProto::TENSORS))
    for (const onnx::TensorProto& t : a->tensors())
      out.push_back(array_of(t, folder_, where_ + ", attribute " + name));
  return out;
}

void Use::finish() const {
  for (const AttributeProto& a : node_.attribute())
    if (!read_.contains(a.name()))
      fail("attribute is not supported", a.name(),
           join(std::vector<std::string>(read_.begin(), read_.end()), " "));
}

int64_t Use::axis(int64_t axis, int rank) const {
  if (axis < -rank || axis >= rank)
    fail("axis is out of range", std::to_string(axis), fmt::format("{} <= axis < {}", -rank, rank));
  return axis < 0 ? axis + rank : axis;
}

std::vector<int64_t> Use::axes(std::vector<int64_t> axes, int rank) const {
  for (int64_t& a : axes) a = axis(a, rank);
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) fail("an axis stands twice", join(axes));
  return axes;
}

void Use::fail(std::string problem, std::string got, std::string allowed) const {
  throw UserError({where_, std::move(problem), std::move(got), std::move(allowed)});
}

Held elementwise(std::span<const Held> in, const std::function<Value(std::vector<Value>)>& build) {
  Dims dims;
  for (const Held& h : in) dims = op::broadcast_dims(dims, dims_of(h));
  const auto rank = static_cast<int>(dims.size());
  bool last = false;
  for (const Held& h : in) last = last || (h.last && h.value.rank() == rank);
  const Dims stored = last ? op::pick(dims, to_last_perm(rank)) : dims;
  std::vector<Value> operands;
  for (const Held& h : in) {
    const Dims from = dims_of(h);
    if (!last) {
      operands.push_back(stretched(plain(h), stored));
    } else if (h.last && h.value.rank() == rank) {
      operands.push_back(stretched(h.value, stored));
    } else if (from.empty()) {
      operands.push_back(stretched(h.value, stored));
    } else {  // seen as channels-first with leading ones
      Dims full(static_cast<size_t>(rank) - from.size(), Dim(1));
      full.insert(full.end(), from.begin(), from.end());
      operands.push_back(stretched(transposed(reshaped(plain(h), full), to_last_perm(rank)), stored));
    }
  }
  return held(build(std::move(operands)), last);
}

Results elementwise(const Use& use, const std::function<Value(std::vector<Value>)>& build) {
  std::vector<Held> in;
  for (size_t i = 0; i < use.inputs(); ++i) in.push_back(use.tensor(i));
  return {elementwise(in, build)};
}

Results read_our_node(Use& use) {
  const ir::OpDef* op = op::find_op(use.op());
  if (!op || op->kind == ir::Kind::leaf) use.fail("no such op of ours", use.op());
  const std::vector<Array> pool = use.arrays("pool");
  const std::string text = use.text("attrs", "");
  TextReader in(text, use.where());
  ir::FieldParser fields{in, &pool};
  ir::Attrs attrs(op->attrs, op->attrs->parse(fields));
  if (!in.at_end()) in.fail("text after the attributes");
  std::vector<Value> operands;
  for (size_t i = 0; i < use.inputs(); ++i) operands.push_back(use.value(i));
  Results out;
  for (Value& v : ir::make_all(*op, std::move(operands), std::move(attrs))) out.push_back(held(std::move(v)));
  return out;
}

namespace {

using Rows = std::map<std::string_view, std::vector<const ReadRow*>>;
const Rows& all_rows() {
  static const Rows rows = [] {
    Rows all;
    for (const auto& family : {math_rows(), shape_rows(), network_rows(), reduce_rows(), resize_rows(),
                               loss_rows(), transformer_rows()})
      for (const ReadRow& r : family) all[r.op].push_back(&r);
    return all;
  }();
  return rows;
}

/// Reads one model.
class Reader {
 public:
  Reader(const onnx::ModelProto& model, std::string file, std::filesystem::path folder,
         const OnnxLoadOptions& options)
      : model_(model),
        file_(std::move(file)),
        folder_(std::move(folder)),
        options_(options),
        dim_symbols_(model.graph()) {}

  ir::Graph read() {
    read_opsets();
    const onnx::GraphProto& g = model_.graph();
    out_.name = g.name();
    for (const onnx::TensorProto& t : g.initializer()) read_initializer(t);
    if (g.sparse_initializer_size() > 0)
      fail("sparse initializers are not supported", g.sparse_initializer(0).values().name());
    symbols_ = options_.symbols;
    for (const onnx::ValueInfoProto& i : g.input()) bind_symbols(i);
    for (const onnx::ValueInfoProto& i : g.input()) read_input(i);
    for (const onnx::NodeProto& n : g.node()) read_node(n);
    for (const onnx::ValueInfoProto& o : g.output()) read_output(o);
    if (out_.outputs.empty()) fail("the graph has no output");
    read_state();
    settle_parameters();
    out_ = from_onnx_terms(out_);
    ir::verify(out_);
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string problem, std::string got = "", std::string allowed = "") const {
    throw UserError({file_, std::move(problem), std::move(got), std::move(allowed)});
  }

  void read_opsets() {
    if (model_.ir_version() > newest_ir_version)
      fail("IR version is not supported", std::to_string(model_.ir_version()),
           fmt::format("1 to {}", newest_ir_version));
    for (const auto& o : model_.opset_import()) {
      if (o.domain().empty() || o.domain() == "ai.onnx") opset_ = o.version();
      else if (o.domain() == our_domain && o.version() != 1)
        fail("the domain espalier is of another version", std::to_string(o.version()), "1");
    }
    if (opset_ == 0 && model_.opset_import_size() == 0) opset_ = 1;
    if (opset_ != 0 && (opset_ < oldest_opset || opset_ > newest_opset))
      fail("opset is not supported", std::to_string(opset_),
           fmt::format("{} to {}", oldest_opset, newest_opset));
  }

  void define(const std::string& name, Held held) {
    if (!names_.emplace(name, std::move(held)).second) fail("a name is defined twice", quote(name));
  }

  void read_initializer(const onnx::TensorProto& t) {
    if (t.name().empty()) fail("an initializer has no name");
    if (t.name().find(move_mark) != std::string::npos)
      fail("the name of an initializer has a control character", quote(t.name()));
    Array value = array_of(t, folder_, fmt::format("{}, initializer {}", file_, quote(t.name())));
    define(t.name(), held(ir::constant(std::move(value), t.name()[0] == '#' ? "" : t.name())));
  }

  /// What the dims given for an input say of its symbols.
  void bind_symbols(const onnx::ValueInfoProto& info) {
    const auto given = options_.dims.find(info.name());
    if (given == options_.dims.end()) return;
    const ir::Type type = type_of(info, dim_symbols_, fmt::format("{}, input {}", file_, quote(info.name())));
    if (!ir::bind_dims(type.dims, ir::to_dims(given->second), symbols_))
      fail("the dims given for input " + quote(info.name()) + " do not fit", ir::dims_text(given->second),
           type.text());
  }

  void read_input(const onnx::ValueInfoProto& info) {
    if (info.name().empty()) fail("an input has no name");
    if (const auto it = names_.find(info.name()); it != names_.end() && ir::constant_value(it->second.value))
      return;
    ir::Type type = type_of(info, dim_symbols_, fmt::format("{}, input {}", file_, quote(info.name())));
    for (Dim& d : type.dims)
      if (const auto it = symbols_.find(std::string(d.symbol_name())); !d.is_static() && it != symbols_.end())
        d = d.factor() * it->second;
    if (const auto it = options_.constants.find(info.name()); it != options_.constants.end()) {
      if (it->second.dtype() != type.dtype || it->second.rank() != type.rank())
        fail("the value of input " + quote(info.name()) + " is of another type", it->second.type().text(),
             type.text());
      return define(info.name(), held(ir::constant(it->second)));
    }
    out_.inputs.push_back(ir::new_input(info.name(), std::move(type)));
    define(info.name(), held(out_.inputs.back()));
  }

  const Held& lookup(const std::string& name, const std::string& by) const {
    const auto it = names_.find(name);
    if (it == names_.end())
      fail("a value is used before it is defined", fmt::format("{} by {}", quote(name), by),
           "initializers, inputs and results of earlier nodes");
    return it->second;
  }

  ReadFn find_row(const Use& use, const std::string& domain) const {
    if (domain == our_domain) return read_our_node;
    if (!domain.empty() && domain != "ai.onnx")
      use.fail("the domain is not supported", domain, "ai.onnx espalier");
    const auto it = all_rows().find(use.op());
    if (it == all_rows().end()) {
      std::string known;
      for (const auto& [name, rows] : all_rows()) known += (known.empty() ? "" : " ") + std::string(name);
      use.fail("the op is not supported", use.op(), known);
    }
    std::string allowed;
    for (const ReadRow* r : it->second) {
      const bool fits =
          static_cast<int>(use.inputs()) >= r->min_inputs && static_cast<int>(use.inputs()) <= r->max_inputs;
      if (opset_ >= r->since && opset_ <= r->until && fits) return r->read;
      allowed += fmt::format("{}opsets {} to {} with {} to {} inputs", allowed.empty() ? "" : ", ", r->since,
                             r->until, r->min_inputs, r->max_inputs);
    }
    use.fail("the op is not supported in this opset or with this number of inputs",
             fmt::format("opset {}, {} inputs", opset_, use.inputs()), allowed);
  }

  /// Rows ask for the numbers of dims; UserError where it is a symbol that had none.
  static void refuse_symbols(const Use& use) {
    for (size_t i = 0; i < use.inputs(); ++i)
      if (use.has(i))
        for (const Dim& d : use.dims(i))
          if (!d.is_static())
            use.fail("a symbolic dim is not supported here", dims_text(use.dims(i)),
                     "symbols bound when loading");
  }

  void read_node(const onnx::NodeProto& node) {
    std::vector<Held> inputs;
    const std::string by =
        node.op_type() + " " + quote(node.output_size() > 0 ? node.output(0) : node.name());
    for (const std::string& name : node.input()) inputs.push_back(name.empty() ? Held{} : lookup(name, by));
    while (!inputs.empty() && !inputs.back()) inputs.pop_back();
    Use use(node, opset_, std::move(inputs), file_, folder_);
    Results results;
    try {
      results = read_sizes(use);
      if (results.empty()) {
        results = find_row(use, node.domain())(use);
        use.finish();
      }
    } catch (const UserError& e) {
      if (e.fields().where.starts_with(use.where())) throw;
      throw UserError(
          {use.where() + ": " + e.fields().where, e.fields().problem, e.fields().got, e.fields().allowed});
    } catch (const InternalError&) {
      refuse_symbols(use);
      throw;
    }
    for (int i = 0; i < node.output_size(); ++i) {
      if (node.output(i).empty()) continue;
      if (static_cast<size_t>(i) >= results.size() || !results[static_cast<size_t>(i)])
        use.fail("a result is not supported", fmt::format("result {} {}", i, quote(node.output(i))));
      Held& h = results[static_cast<size_t>(i)];
      if (h.value) {
        check_size(use, h.value.type());
        h.value = folder_of_constants_.fold(h.value);
      }
      define(node.output(i), std::move(h));
    }
  }

  static void check_size(const Use& use, const ir::Type& type) {
    int64_t n = 1;
    for (const Dim& d : type.dims)
      if (__builtin_mul_overflow(n, d.factor(), &n) || n > (int64_t{1} << 40))
        use.fail("a result is too large", type.text(), "at most 2^40 elements");
  }

  void read_output(const onnx::ValueInfoProto& info) {
    const Held& h = lookup(info.name(), "the graph's outputs");
    if (!h.value) fail("an output is a symbolic size", quote(info.name()), "symbols bound when loading");
    std::string name = info.name();
    if (name.ends_with("#out")) name.resize(name.size() - 4);
    if (out_.find_output(name)) fail("an output stands twice", quote(name));
    out_.outputs.push_back({std::move(name), folder_of_constants_.fold(plain(h))});
  }

  void read_state() {
    for (const auto& p : model_.metadata_props()) {
      if (p.key() != "espalier.state") continue;
      TextReader in(p.value(), file_ + ", metadata espalier.state");
      while (!in.at_end()) {
        ir::StatePair pair{.input = in.string(), .output = in.string()};
        const auto i = out_.find_input(pair.input), o = out_.find_output(pair.output);
        if (!i || !o || out_.inputs[*i].type() != out_.outputs[*o].value.type())
          fail("a state pair names no input and output of one type", pair.input + " " + pair.output);
        out_.state.push_back(std::move(pair));
      }
    }
  }

  /// The parameters of the graph are the initializers by their names. One that stands in a single form is held in that form; one
  /// that stands in several is held as the file has it, and moved in the graph, so that it stays one parameter.
  void settle_parameters() {
    std::map<std::string, int> forms;
    for (const ir::Node* n : out_.nodes())
      if (const std::string& name = ir::constant_name(n->value()); !name.empty())
        ++forms[moved_name(name).first];
    out_ = ir::transform(out_, [&](const ir::Node& n, const std::vector<Value>&) -> std::vector<Value> {
      if (ir::constant_name(n.value()).empty()) return {};
      const auto [name, moves] = moved_name(ir::constant_name(n.value()));
      if (forms[name] == 1) return {ir::constant(*ir::constant_value(n.value()), name)};
      return {moved(names_.at(name).value, moves)};
    });
    out_.note_constant_names();
  }

  const onnx::ModelProto& model_;
  std::string file_;
  std::filesystem::path folder_;
  const OnnxLoadOptions& options_;
  DimSymbols dim_symbols_;
  int64_t opset_ = 0;
  std::map<std::string, int64_t> symbols_;
  std::map<std::string, Held> names_;
  Folder folder_of_constants_;
  ir::Graph out_;
};

}  // namespace

static ir::Graph read_model(const onnx::ModelProto& model, const std::string& name,
                            const std::filesystem::path& folder, const OnnxLoadOptions& options) {
  return Reader(model, name, folder, options).read();
}

ir::Graph load_onnx(const std::filesystem::path& path, const OnnxLoadOptions& options) {
  onnx::ModelProto model;
  {
    const auto file = MappedFile::open(path);
    model = parse_model({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()},
                        path.string());
  }
  const std::filesystem::path parent = path.parent_path();
  return read_model(model, path.string(), parent.empty() ? "." : parent, options);
}

ir::Graph parse_onnx(std::string_view bytes, const std::string& name, const OnnxLoadOptions& options) {
  return read_model(parse_model(bytes, name), name, {}, options);
}

}  // namespace espalier::format
