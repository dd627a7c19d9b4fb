#include "target/cuda/sim/sim_dnn.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "target/conv_call.h"
#include "target/cuda/driver/dnn_engine.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/cuda/sim/sim_engine_conv.h"
#include "target/device.h"

namespace espalier::target::cuda::sim {

using namespace driver;
using A = DnnAttribute;
using Ref = SimDnnObject::Ref;

namespace {

constexpr DnnStatus not_initialized = 1001, bad_param = 2000, not_supported = 3000;
/// What each engine wants.
constexpr int64_t engine_workspace = 512;
/// Noted as such: the product must never take them.
constexpr int64_t nondeterministic_engine = 99, reordering_engine = 98;

size_t size_of(DnnType type) {
  switch (type) {
    case DnnType::boolean:
    case DnnType::character: return 1;
    case DnnType::handle:
    case DnnType::int64:
    case DnnType::float64:
    case DnnType::pointer:
    case DnnType::descriptor: return 8;
    default: return 4;
  }
}

/// Thrown where a graph is not one that a record gives.
struct Unknown {};

template <class T>
std::vector<T> all(const SimDnnObject& o, A name) {
  const auto it = o.values.find(name);
  if (it == o.values.end()) throw Unknown();
  std::vector<T> out(it->second.size() / sizeof(T));
  std::memcpy(out.data(), it->second.data(), out.size() * sizeof(T));
  return out;
}
template <class T>
T one(const SimDnnObject& o, A name) {
  const std::vector<T> v = all<T>(o, name);
  if (v.size() != 1) throw Unknown();
  return v[0];
}
const std::vector<Ref>& parts(const SimDnnObject& o, A name) {
  const auto it = o.parts.find(name);
  if (it == o.parts.end() || it->second.empty()) throw Unknown();
  return it->second;
}
const Ref& part(const SimDnnObject& o, A name) { return parts(o, name)[0]; }

ir::Dtype dtype_of(const SimDnnObject& o, A name) {
  switch (one<DnnDtype>(o, name)) {
    case DnnDtype::f32: return ir::Dtype::f32;
    case DnnDtype::f64: return ir::Dtype::f64;
    case DnnDtype::f16: return ir::Dtype::f16;
    case DnnDtype::i8: return ir::Dtype::i8;
    case DnnDtype::i32: return ir::Dtype::i32;
    case DnnDtype::bf16: return ir::Dtype::bf16;
  }
  throw Unknown();
}

template <size_t N>
std::array<int64_t, N> axes(const SimDnnObject& o, A name) {
  const std::vector<int64_t> v = all<int64_t>(o, name);
  std::array<int64_t, N> out{};
  if (v.size() > N) throw Unknown();
  std::copy(v.begin(), v.end(), out.begin());
  return out;
}

ConvTensor tensor_of(const SimDnnObject& o) {
  if (one<int64_t>(o, A::tensor_alignment) != conv_alignment) throw Unknown();
  return {.dtype = dtype_of(o, A::tensor_dtype),
          .dims = axes<conv_spatial_most + 2>(o, A::tensor_dims),
          .strides = axes<conv_spatial_most + 2>(o, A::tensor_strides)};
}
bool is_virtual(const SimDnnObject& o) { return one<char>(o, A::tensor_virtual) != 0; }
int64_t id_of(const SimDnnObject& o) { return one<int64_t>(o, A::tensor_id); }

/// The convolution of a graph, and the ids of its operands in the record's order.
struct Read {
  ConvCall call;
  std::vector<int64_t> ids;
  int64_t engine = 0;  ///< of a plan
};

class Reader {
 public:
  explicit Reader(const SimDnnObject& graph) : operations_(parts(graph, A::graph_operations)) {}

  Read run() {
    convolution(*operations_.at(0));
    for (size_t i = 1; i < operations_.size(); ++i) step(*operations_[i]);
    if (is_virtual(*at_) || !conv_error(out_.call).empty()) throw Unknown();
    return std::move(out_);
  }

 private:
  void convolution(const SimDnnObject& o) {
    struct Names {
      A x, w, y, convolution, alpha, beta;
    };
    constexpr Names forward{A::forward_x,           A::forward_w,     A::forward_y,
                            A::forward_convolution, A::forward_alpha, A::forward_beta},
        data{A::data_grad_dx,          A::data_grad_w,     A::data_grad_dy,
             A::data_grad_convolution, A::data_grad_alpha, A::data_grad_beta},
        weight{A::weight_grad_x,           A::weight_grad_dw,    A::weight_grad_dy,
               A::weight_grad_convolution, A::weight_grad_alpha, A::weight_grad_beta};
    ConvCall& c = out_.call;
    c.direction = o.kind == DnnKind::conv_forward     ? ConvDirection::forward
                  : o.kind == DnnKind::conv_data_grad ? ConvDirection::data_grad
                                                      : ConvDirection::weight_grad;
    if (c.direction == ConvDirection::weight_grad && o.kind != DnnKind::conv_weight_grad) throw Unknown();
    const Names& n = c.direction == ConvDirection::forward     ? forward
                     : c.direction == ConvDirection::data_grad ? data
                                                               : weight;
    const Ref &x = part(o, n.x), &w = part(o, n.w), &y = part(o, n.y);
    const SimDnnObject& conv = *part(o, n.convolution);
    at_ = c.direction == ConvDirection::forward ? y : c.direction == ConvDirection::data_grad ? x : w;
    c.x = tensor_of(*x), c.w = tensor_of(*w), c.y = tensor_of(*y);
    out_.ids = {id_of(*x), id_of(*w), id_of(*y)};
    c.spatial = static_cast<int8_t>(one<int64_t>(conv, A::convolution_spatial));
    c.compute = dtype_of(conv, A::convolution_compute);
    c.stride = axes<conv_spatial_most>(conv, A::convolution_stride);
    c.dilation = axes<conv_spatial_most>(conv, A::convolution_dilation);
    c.pad_low = axes<conv_spatial_most>(conv, A::convolution_pad_low);
    c.pad_high = axes<conv_spatial_most>(conv, A::convolution_pad_high);
    if (one<int>(conv, A::convolution_mode) != dnn_cross_correlation || c.w.dims[1] < 1) throw Unknown();
    c.groups = c.x.dims[1] / c.w.dims[1];
    const bool f64 = c.compute == ir::Dtype::f64;
    if ((f64 ? one<double>(o, n.alpha) : one<float>(o, n.alpha)) != 1 ||
        (f64 ? one<double>(o, n.beta) : one<float>(o, n.beta)) != 0)
      throw Unknown();
  }

  ConvTensor& result() {
    ConvCall& c = out_.call;
    return c.direction == ConvDirection::forward ? c.y : c.direction == ConvDirection::data_grad ? c.x : c.w;
  }

  void step(const SimDnnObject& o) {
    const SimDnnObject& mode = *part(o, A::pointwise_descriptor);
    const Ref& to = part(o, A::pointwise_y);
    if (o.kind != DnnKind::pointwise_operation || part(o, A::pointwise_x) != at_ || !is_virtual(*at_) ||
        dtype_of(mode, A::pointwise_precision) != out_.call.compute || result().dtype != out_.call.compute)
      throw Unknown();
    ConvStep s{};
    const auto other = o.parts.find(A::pointwise_b);
    const bool binary = other != o.parts.end();
    switch (one<DnnPointwise>(mode, A::pointwise_mode)) {
      case DnnPointwise::add:
        s = binary && is_vector(*other->second[0]) ? ConvStep::add_channel : ConvStep::add_residual;
        break;
      case DnnPointwise::mul: s = ConvStep::mul_channel; break;
      case DnnPointwise::relu:
        if (one<int>(mode, A::pointwise_nan) != dnn_propagate_nan) throw Unknown();
        s = ConvStep::relu;
        break;
      case DnnPointwise::sigmoid: s = ConvStep::sigmoid; break;
      case DnnPointwise::tanh: s = ConvStep::tanh; break;
    }
    if (takes_operand(s) != binary || out_.call.step_count == conv_steps_most) throw Unknown();
    out_.call.steps[static_cast<size_t>(out_.call.step_count++)] = s;
    if (binary) out_.ids.push_back(id_of(*other->second[0]));
    result().dtype = tensor_of(*to).dtype;
    out_.ids[out_.call.direction == ConvDirection::forward     ? 2
             : out_.call.direction == ConvDirection::data_grad ? 0
                                                               : 1] = id_of(*to);
    at_ = to;
  }

  /// Has it one entry for each channel, all other extents being 1?
  static bool is_vector(const SimDnnObject& o) {
    const ConvTensor t = tensor_of(o);
    for (size_t i = 0; i < t.dims.size(); ++i)
      if (i != 1 && t.dims[i] > 1) return false;
    return true;
  }

  const std::vector<Ref>& operations_;
  Ref at_;
  Read out_;
};

std::optional<Read> read(const SimDnnObject& graph) {
  try {
    return Reader(graph).run();
  } catch (const Unknown&) {
    return {};
  }
}

/// What the stream does when its turn comes.
struct Work {
  const ConvCall& call;
  const std::vector<Address>& operands;
  const MemoryMap& memory;
  std::string problem;

  static void run(void* self) {
    auto& w = *static_cast<Work*>(self);
    try {
      const std::vector<int64_t> bytes = conv_operand_bytes(w.call);
      std::vector<Extent> extents;
      for (size_t i = 0; i < bytes.size() && w.problem.empty(); ++i) {
        w.problem = w.memory.check(w.operands[i], static_cast<size_t>(bytes[i]));
        extents.push_back({reinterpret_cast<void*>(w.operands[i]), bytes[i]});
      }
      if (w.problem.empty()) run_conv(w.call, extents);
    } catch (const InternalError& e) {
      w.problem = e.what();
    }
  }
};

constexpr std::string_view plan_mark = "{\"simulated plan\": \"";

/// A plan as text: its record and its operands' ids, byte by byte.
std::string json_of(const Read& made) {
  target::ConvCall call = made.call;
#if __has_builtin(__builtin_clear_padding)
  __builtin_clear_padding(&call);  // equal plans are equal texts
#endif
  std::string bytes(reinterpret_cast<const char*>(&call), sizeof call);
  bytes.append(reinterpret_cast<const char*>(&made.engine), sizeof made.engine);
  bytes.append(reinterpret_cast<const char*>(made.ids.data()), made.ids.size() * sizeof made.ids[0]);
  std::string out(plan_mark);
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out + "\"}";
}

std::optional<Read> read_json(std::string_view json) {
  if (!json.starts_with(plan_mark) || !json.ends_with("\"}")) return {};
  json = json.substr(plan_mark.size(), json.size() - plan_mark.size() - 2);
  std::string bytes;
  for (size_t i = 0; i + 1 < json.size(); i += 2) {
    unsigned char byte = 0;
    if (std::from_chars(&json[i], &json[i] + 2, byte, 16).ptr != &json[i] + 2) return {};
    bytes += static_cast<char>(byte);
  }
  Read out;
  constexpr size_t head = sizeof out.call + sizeof out.engine;
  if (bytes.size() < head || (bytes.size() - head) % sizeof out.ids[0] != 0) return {};
  std::memcpy(&out.call, bytes.data(), sizeof out.call);
  std::memcpy(&out.engine, bytes.data() + sizeof out.call, sizeof out.engine);
  out.ids.resize((bytes.size() - head) / sizeof out.ids[0]);
  std::memcpy(out.ids.data(), bytes.data() + head, out.ids.size() * sizeof out.ids[0]);
  if (!conv_error(out.call).empty()) return {};
  return out;
}

/// What a plan does, made of a configuration or of its text.
std::optional<Read> read_plan(const SimDnnObject& plan) {
  if (const auto json = plan.values.find(A::plan_json); json != plan.values.end())
    return read_json({json->second.data(), json->second.size()});
  try {
    const SimDnnObject& config = *part(plan, A::plan_config);
    std::optional<Read> made = read(*part(config, A::heuristics_graph));
    if (made) made->engine = one<int64_t>(config, A::engine_index);
    return made;
  } catch (const Unknown&) {
    return {};
  }
}

DnnStatus answer(int64_t value, int64_t room, int64_t* count, void* values) {
  *count = 1;
  if (room > 0) std::memcpy(values, &value, sizeof value);
  return dnn_success;
}

/// The notes of an engine: this one where it is `noted`, else none.
template <class Note>
DnnStatus note_of(const SimDnnObject& engine, int64_t noted, Note note, int64_t room, int64_t* count,
                  void* values) {
  *count = one<int64_t>(engine, A::engine_index) == noted ? 1 : 0;
  if (*count > 0 && room > 0) std::memcpy(values, &note, sizeof note);
  return dnn_success;
}

}  // namespace

size_t sim_dnn_version() { return 91900; }
size_t sim_dnn_cudart_version() { return 13000; }
const char* sim_dnn_error(DnnStatus status) {
  return status == not_supported ? "not supported" : status == bad_param ? "bad parameter" : "error";
}
void sim_dnn_last_error(char* message, size_t size) {
  if (size > 0) *message = '\0';
}

DnnStatus SimDnn::create(DnnHandle* handle) {
  CuResult error = cu_success;
  SimContext* context = state.current(error);
  if (!context) return not_initialized;
  auto data = std::make_unique<HandleData>(HandleData{context});
  *handle = reinterpret_cast<DnnHandle>(data.get());
  handles.emplace(*handle, std::move(data));
  return dnn_success;
}
DnnStatus SimDnn::destroy(DnnHandle handle) { return handles.erase(handle) == 1 ? dnn_success : bad_param; }

DnnStatus SimDnn::set_stream(DnnHandle handle, void* stream) {
  const auto it = handles.find(handle);
  if (it == handles.end()) return bad_param;
  it->second->stream = static_cast<CuStream>(stream);
  return dnn_success;
}

DnnStatus SimDnn::create_descriptor(DnnKind kind, Descriptor* descriptor) {
  auto object = std::make_shared<SimDnnObject>(kind);
  *descriptor = reinterpret_cast<Descriptor>(object.get());
  objects.emplace(*descriptor, std::move(object));
  return dnn_success;
}
DnnStatus SimDnn::destroy_descriptor(Descriptor descriptor) {
  return objects.erase(descriptor) == 1 ? dnn_success : bad_param;
}

DnnStatus SimDnn::set_attribute(Descriptor descriptor, DnnAttribute name, DnnType type, int64_t count,
                                const void* values) {
  const auto it = objects.find(descriptor);
  if (it == objects.end() || it->second->finished || count < 1 || !values) return bad_param;
  if (type != DnnType::descriptor) {
    const char* from = static_cast<const char*>(values);
    it->second->values[name].assign(from, from + static_cast<size_t>(count) * size_of(type));
    return dnn_success;
  }
  std::vector<Ref> refs;
  for (int64_t i = 0; i < count; ++i) {
    const auto other = objects.find(static_cast<const Descriptor*>(values)[i]);
    if (other == objects.end() || !other->second->finished) return bad_param;
    refs.push_back(other->second);
  }
  it->second->parts[name] = std::move(refs);
  return dnn_success;
}

DnnStatus SimDnn::finalize(Descriptor descriptor) {
  const auto it = objects.find(descriptor);
  if (it == objects.end() || it->second->finished) return bad_param;
  SimDnnObject& o = *it->second;
  if (o.kind == DnnKind::graph && !read(o)) return not_supported;
  if (o.kind == DnnKind::plan && !read_plan(o)) return bad_param;
  o.finished = true;
  return dnn_success;
}

/// Make the object behind `to` one of this engine for the graph of `from`.
DnnStatus SimDnn::give(Descriptor to, const SimDnnObject& from, int64_t engine) {
  const auto it = objects.find(to);
  if (it == objects.end()) return bad_param;
  it->second->parts[A::heuristics_graph] = from.parts.at(A::heuristics_graph);
  const char* bytes = reinterpret_cast<const char*>(&engine);
  it->second->values[A::engine_index].assign(bytes, bytes + sizeof engine);
  it->second->finished = true;
  return dnn_success;
}

/// One configuration of each engine, those that nobody may take behind the first; no others as a fallback.
DnnStatus SimDnn::configurations(const SimDnnObject& heuristics, int64_t room, int64_t* count,
                                 const Descriptor* to) {
  std::vector<int64_t> engines;
  if (one<DnnHeuristics>(heuristics, A::heuristics_mode) == DnnHeuristics::best)
    for (int64_t e = 0; e < state.options.ways.count; ++e) engines.push_back(e);
  if (!engines.empty()) engines.insert(engines.begin() + 1, {nondeterministic_engine, reordering_engine});
  *count = static_cast<int64_t>(engines.size());
  for (int64_t i = 0; i < std::min(room, *count); ++i)
    if (const DnnStatus status = give(to[i], heuristics, engines[static_cast<size_t>(i)]);
        status != dnn_success)
      return status;
  return dnn_success;
}

DnnStatus SimDnn::get_attribute(Descriptor descriptor, DnnAttribute name, DnnType, int64_t room,
                                int64_t* count, void* values) {
  const auto it = objects.find(descriptor);
  if (it == objects.end()) return bad_param;
  const SimDnnObject& o = *it->second;
  switch (name) {
    case A::heuristics_results: return configurations(o, room, count, static_cast<const Descriptor*>(values));
    case A::config_engine: {
      *count = 1;
      if (room < 1) return dnn_success;
      return give(*static_cast<const Descriptor*>(values), o, one<int64_t>(o, A::engine_index));
    }
    case A::engine_numerical_notes:
      return note_of(o, nondeterministic_engine, DnnNote::nondeterministic, room, count, values);
    case A::engine_behaviour_notes:
      return note_of(o, reordering_engine, DnnBehaviour::reordered_filter, room, count, values);
    case A::engine_index: return answer(one<int64_t>(o, A::engine_index), room, count, values);
    case A::plan_workspace: return answer(engine_workspace, room, count, values);
    case A::device_json: {
      if (o.kind != DnnKind::device || !o.finished) return bad_param;
      const std::string_view json = driver::dnn_h200_json;
      *count = static_cast<int64_t>(json.size());
      if (room > 0) std::memcpy(values, json.data(), std::min(json.size(), static_cast<size_t>(room)));
      return dnn_success;
    }
    case A::plan_json: {
      const std::optional<Read> made = read_plan(o);
      if (!made) return bad_param;
      const std::string json = json_of(*made);
      *count = static_cast<int64_t>(json.size());
      if (room > 0) std::memcpy(values, json.data(), std::min(json.size(), static_cast<size_t>(room)));
      return dnn_success;
    }
    default: return not_supported;
  }
}

DnnStatus SimDnn::execute(DnnHandle handle, Descriptor plan, Descriptor pack) {
  const auto h = handles.find(handle);
  const auto p = objects.find(plan), v = objects.find(pack);
  if (h == handles.end() || p == objects.end() || v == objects.end()) return bad_param;
  CuResult error = cu_success;
  const auto stream = state.find(h->second->stream, error);
  if (!stream || &stream->context != h->second->context) return bad_param;
  try {
    auto made = read_plan(*p->second);
    const auto ids = all<int64_t>(*v->second, A::pack_ids);
    const auto pointers = all<Address>(*v->second, A::pack_pointers);
    if (!made || ids.size() != pointers.size() || ids.size() != made->ids.size()) return bad_param;
    std::vector<Address> operands;
    for (const int64_t id : made->ids) {
      const auto place = std::find(ids.begin(), ids.end(), id);
      if (place == ids.end()) return bad_param;
      operands.push_back(pointers[static_cast<size_t>(place - ids.begin())]);
    }
    operands.push_back(one<Address>(*v->second, A::pack_workspace));
    made->call.workspace = engine_workspace;
    if (made->engine == state.options.ways.failing) return not_supported;
    ++state.ways_taken["cudnn " + std::to_string(made->engine)];
    const bool wrong = made->engine == state.options.ways.wrong;
    stream->add([this, call = made->call, operands, wrong](SimStream& self) {
      SimContext& context = self.context;
      Work work{call, operands, context.memory, ""};
      self.worker.run(&Work::run, &work);
      if (!work.problem.empty())
        state.lose(context, cu_error_illegal_address, "a convolution: " + work.problem);
      const size_t result = call.direction == ConvDirection::forward     ? 2
                            : call.direction == ConvDirection::data_grad ? 0
                                                                         : 1;
      if (wrong)
        self.worker.fill(reinterpret_cast<void*>(operands[result]), wrong_byte,
                         static_cast<size_t>(ir::dtype_size(conv_result(call).dtype)));
    });
  } catch (const Unknown&) {
    return bad_param;
  }
  return dnn_success;
}

}  // namespace espalier::target::cuda::sim
