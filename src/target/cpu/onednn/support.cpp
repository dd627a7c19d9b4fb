#include "target/cpu/onednn/support.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "target/cpu/cpu_features.h"

namespace espalier::target::cpu::onednn {

const dnnl::engine& engine() {
  static const dnnl::engine cpu = [] {
    const CpuFeatures& f = cpu_features();
    using Isa = dnnl::cpu_isa;
    if (!f.avx512) dnnl::set_max_cpu_isa(Isa::avx2);
    else if (!f.avx512_bf16) dnnl::set_max_cpu_isa(f.avx512_vnni ? Isa::avx512_core_vnni : Isa::avx512_core);
    else if (!f.amx_tile) dnnl::set_max_cpu_isa(Isa::avx512_core_bf16);
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return cpu;
}

dnnl::memory::data_type data_type(ir::Dtype dtype) {
  ESPALIER_CHECK(dtype == ir::Dtype::f32 || dtype == ir::Dtype::bf16, "oneDNN calls take f32 and bf16");
  return dtype == ir::Dtype::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

TeamScope::TeamScope(int threads)
    : threads_before_(omp_get_max_threads()), levels_before_(omp_get_max_active_levels()) {
  omp_set_num_threads(threads);
  if (threads == 1) omp_set_max_active_levels(0);
}

TeamScope::~TeamScope() {
  omp_set_num_threads(threads_before_);
  omp_set_max_active_levels(levels_before_);
}

struct Step::Binding {
  dnnl::stream stream;
  std::vector<dnnl::memory> memories;
  std::vector<dnnl_exec_arg_t> arguments;
};

struct Step::Bindings {
  std::mutex mutex;
  std::vector<std::unique_ptr<Binding>> idle;
  size_t made = 0;
};

Step::Step(dnnl::primitive primitive, std::vector<Argument> arguments, const dnnl::memory::desc& scratch)
    : primitive_(std::move(primitive)),
      arguments_(std::move(arguments)),
      scratch_bytes_(bytes_of(scratch)),
      bindings_(std::make_shared<Bindings>()) {
  if (scratch_bytes_ > 0) arguments_.push_back({DNNL_ARG_SCRATCHPAD, scratch});
}

std::unique_ptr<Step::Binding> Step::make_binding() const {
  auto binding = std::make_unique<Binding>();
  binding->stream = dnnl::stream(engine());
  for (const Argument& argument : arguments_) {
    binding->memories.push_back(dnnl::memory(argument.desc, engine(), DNNL_MEMORY_NONE));
    binding->arguments.push_back({argument.id, binding->memories.back().get()});
  }
  return binding;
}

// The first run makes one for every thread of the pool, however many take part in it, so that no later run allocates.
std::unique_ptr<Step::Binding> Step::take() const {
  const std::lock_guard lock(bindings_->mutex);
  Bindings& b = *bindings_;
  if (b.idle.empty()) {
    const size_t wanted = std::max(b.made + 1, static_cast<size_t>(pool_threads()));
    b.idle.reserve(wanted);
    for (; b.made < wanted; ++b.made) b.idle.push_back(make_binding());
  }
  std::unique_ptr<Binding> binding = std::move(b.idle.back());
  b.idle.pop_back();
  return binding;
}

void Step::run(std::span<const void* const> pointers, void* scratch) const {
  std::unique_ptr<Binding> binding = take();
  const size_t given = arguments_.size() - (scratch_bytes_ > 0 ? 1 : 0);
  ESPALIER_CHECK(pointers.size() == given, "a bound primitive got another number of pointers");
  for (size_t i = 0; i < given; ++i)
    binding->memories[i].set_data_handle(const_cast<void*>(pointers[i]), binding->stream);
  if (scratch_bytes_ > 0) binding->memories[given].set_data_handle(scratch, binding->stream);
  const dnnl_status_t status =
      dnnl_primitive_execute(primitive_.get(), binding->stream.get(),
                             static_cast<int>(binding->arguments.size()), binding->arguments.data());
  ESPALIER_CHECK(status == dnnl_success, "oneDNN failed to execute a prepared primitive");
  const std::lock_guard lock(bindings_->mutex);
  bindings_->idle.push_back(std::move(binding));  // never grows: it has room for all that were made
}

Step reorder(const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  if (from == to) return {};
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc pd(engine(), from, engine(), to, attr);
  return {dnnl::reorder(pd), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}, pd.scratchpad_desc()};
}

namespace {

using dnnl::algorithm;

struct EltwiseRow {
  Post post;
  algorithm method;
  float alpha;
};
constexpr EltwiseRow eltwise_rows[] = {
    {Post::relu, algorithm::eltwise_relu, 0},           {Post::gelu, algorithm::eltwise_gelu_erf, 0},
    {Post::gelu_tanh, algorithm::eltwise_gelu_tanh, 0}, {Post::silu, algorithm::eltwise_swish, 1},
    {Post::sigmoid, algorithm::eltwise_logistic, 0},    {Post::tanh, algorithm::eltwise_tanh, 0},
};

dnnl::memory::desc channel_desc(const dnnl::memory::dims& dims) {
  dnnl::memory::dims strides(dims.size(), 1);
  for (size_t i = dims.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * dims[i + 1];
  return {dims, dnnl::memory::data_type::f32, strides};
}

}  // namespace

bool reads_channels(Post post) { return post == Post::mul_channel || post == Post::add_channel; }

dnnl::primitive_attr attributes(std::span<const Post> posts, const dnnl::memory::dims& channel_dims) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  for (const Post post : posts) {
    if (post == Post::sum) {
      ops.append_sum(1.0f);
    } else if (reads_channels(post)) {
      ops.append_binary(post == Post::mul_channel ? algorithm::binary_mul : algorithm::binary_add,
                        channel_desc(channel_dims));
    } else {
      const auto row = std::ranges::find(eltwise_rows, post, &EltwiseRow::post);
      ops.append_eltwise(1.0f, row->method, row->alpha, 0.0f);
    }
  }
  attr.set_post_ops(ops);
  return attr;
}

void append_post_arguments(std::span<const Post> posts, const dnnl::memory::dims& channel_dims,
                           std::vector<Step::Argument>& arguments) {
  for (size_t i = 0; i < posts.size(); ++i)
    if (reads_channels(posts[i]))
      arguments.push_back(
          {DNNL_ARG_ATTR_MULTIPLE_POST_OP(static_cast<int>(i)) | DNNL_ARG_SRC_1, channel_desc(channel_dims)});
}

bool is_reference(std::string_view implementation) {
  return implementation.starts_with("ref") || implementation.starts_with("simple");
}

std::string layout_name(const dnnl::memory::desc& desc) {
  const dnnl_memory_desc_t& d = desc.data;
  std::string name = fmt::format("{} {} {}", static_cast<int>(d.data_type), static_cast<int>(d.format_kind),
                                 fmt::join(d.padded_dims, d.padded_dims + d.ndims, ","));
  if (d.format_kind == dnnl_format_kind_wino) {
    const dnnl_wino_desc_t& w = d.format_desc.wino_desc;
    return name + fmt::format(" {} {} {} {} {} {} {} {} {}", static_cast<int>(w.wino_format), w.r, w.alpha,
                              w.ic, w.oc, w.ic_block, w.oc_block, w.ic2_block, w.oc2_block);
  }
  const dnnl_blocking_desc_t& b = d.format_desc.blocking;
  return name + fmt::format(" {} {} {}", fmt::join(b.strides, b.strides + d.ndims, ","),
                            fmt::join(b.inner_blks, b.inner_blks + b.inner_nblks, ","),
                            fmt::join(b.inner_idxs, b.inner_idxs + b.inner_nblks, ","));
}

void copy_rows(const void* from, void* to, int64_t rows, int64_t bytes, int64_t pitch) {
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(at(to, r * pitch), at(from, r * pitch), static_cast<size_t>(bytes));
}

Cut cut(int64_t total, int64_t parts, int64_t unit) {
  const int64_t units = (total + unit - 1) / unit;
  const int64_t per_part = (units + parts - 1) / std::max<int64_t>(parts, 1);
  const int64_t size = std::min(total, std::max<int64_t>(per_part, 1) * unit);
  return {size, size > 0 ? (total + size - 1) / size : 0};
}

}  // namespace espalier::target::cpu::onednn
