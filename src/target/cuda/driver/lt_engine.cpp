#include "target/cuda/driver/lt_engine.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace espalier::target::cuda::driver {

namespace {

void check(const LtApi& api, const char* function, LtStatus status, const std::string& got = "") {
  if (status == lt_success) return;
  throw DeviceError({function, fmt::format("{} ({})", api.GetStatusString(status), status), got, ""}, false);
}

LtType type_of(ir::Dtype dtype) {
  switch (dtype) {
    case ir::Dtype::f32: return LtType::r_32f;
    case ir::Dtype::f64: return LtType::r_64f;
    case ir::Dtype::f16: return LtType::r_16f;
    case ir::Dtype::bf16: return LtType::r_16bf;
    case ir::Dtype::i8: return LtType::r_8i;
    case ir::Dtype::i32: return LtType::r_32i;
    default: throw InternalError("a dtype that no matrix product has");
  }
}

LtCompute compute_of(const GemmCall& call) {
  switch (call.compute) {
    case ir::Dtype::f32: return call.tf32 ? LtCompute::f32_fast_tf32 : LtCompute::f32;
    case ir::Dtype::f64: return LtCompute::f64;
    case ir::Dtype::i32: return LtCompute::i32;
    default: throw InternalError("a dtype that no matrix product is computed in");
  }
}

LtEpilogue epilogue_of(GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::none: return LtEpilogue::none;
    case GemmEpilogue::bias: return LtEpilogue::bias;
    case GemmEpilogue::relu: return LtEpilogue::relu;
    case GemmEpilogue::relu_bias: return LtEpilogue::relu_bias;
    case GemmEpilogue::gelu: return LtEpilogue::gelu;
    case GemmEpilogue::gelu_bias: return LtEpilogue::gelu_bias;
    case GemmEpilogue::gelu_aux: return LtEpilogue::gelu_aux;
    case GemmEpilogue::gelu_aux_bias: return LtEpilogue::gelu_aux_bias;
    case GemmEpilogue::relu_aux: return LtEpilogue::relu_aux;
    case GemmEpilogue::relu_aux_bias: return LtEpilogue::relu_aux_bias;
    case GemmEpilogue::drelu: return LtEpilogue::drelu;
    case GemmEpilogue::sum_a: return LtEpilogue::sum_a;
    case GemmEpilogue::sum_b: return LtEpilogue::sum_b;
  }
  throw InternalError("no such epilogue");
}

/// What was asked for, in the library's own numbers.
std::string asked(const GemmCall& call) {
  return fmt::format("{} x {} x {} times {}, types {} {}, compute type {}, epilogue {}", call.m, call.n,
                     call.k, call.batch, static_cast<int>(type_of(call.a.dtype)),
                     static_cast<int>(type_of(call.d.dtype)), static_cast<int>(compute_of(call)),
                     static_cast<int>(epilogue_of(call.epilogue)));
}

/// A factor in the type of the computation.
class Scalar {
 public:
  Scalar(ir::Dtype dtype, double value)
      : f64_(value), f32_(static_cast<float>(value)), i32_(static_cast<int32_t>(value)), dtype_(dtype) {}
  const void* data() const {
    if (dtype_ == ir::Dtype::f64) return &f64_;
    return dtype_ == ir::Dtype::f32 ? static_cast<const void*>(&f32_) : &i32_;
  }

 private:
  double f64_;
  float f32_;
  int32_t i32_;
  ir::Dtype dtype_;
};

template <class Object, class Attribute, class Value>
void set(const LtApi& api, LtStatus (*function)(Object, Attribute, const void*, size_t), const char* name,
         Object object, Attribute attribute, const Value& value) {
  check(api, name, function(object, attribute, &value, sizeof value),
        fmt::format("attribute {}", static_cast<int>(attribute)));
}

}  // namespace

LtLibrary::LtLibrary(std::shared_ptr<const Context> context, const LtApi& api)
    : context_(std::move(context)), api_(api) {
  const Context::Current now(*context_, "cublasLtCreate");
  check(api, "cublasLtCreate", api.Create(&handle_), context_->device_name());
}

LtLibrary::~LtLibrary() {
  CuResult ignored = cu_success;
  const Context::Current now(*context_, ignored);
  (void)api_.Destroy(handle_);
}

const LtApi& find_lt(Libraries& libraries) {
  const Loaded<LtApi>& lt = libraries.lt();
  if (!lt.api)
    throw DeviceError({"matrix products on a GPU", "there is no cuBLASLt", lt.report.reason,
                       "`espalier devices` shows what was found"},
                      false);
  return *lt.api;
}

std::shared_ptr<const LtLibrary> LazyLt::get() {
  const std::lock_guard lock(one_);
  if (!made_) made_ = std::make_shared<const LtLibrary>(context_, find_());
  return made_;
}

LtDescriptors::LtDescriptors(const LtApi& api, const GemmCall& call) : api_(api) {
  try {
    check(api, "cublasLtMatmulDescCreate",
          api.MatmulDescCreate(&desc, compute_of(call), type_of(call.compute)));
    const auto of_desc = [&](LtDescAttribute attribute, const auto& value) {
      set(api, api.MatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute", desc, attribute, value);
    };
    of_desc(LtDescAttribute::transpose_a, call.a.transposed ? LtOperation::transpose : LtOperation::none);
    of_desc(LtDescAttribute::transpose_b, call.b.transposed ? LtOperation::transpose : LtOperation::none);
    of_desc(LtDescAttribute::epilogue, epilogue_of(call.epilogue));
    // The heuristic reads from these addresses only how they are aligned.
    if (has_bias(call.epilogue) || sums_operand(call.epilogue))
      of_desc(LtDescAttribute::bias_pointer, Address{gemm_alignment});
    const bool mask = gives_mask(call.epilogue) || takes_mask(call.epilogue);
    if (mask || keeps_gelu_operand(call.epilogue)) {
      of_desc(LtDescAttribute::aux_pointer, Address{gemm_alignment});
      of_desc(LtDescAttribute::aux_ld, mask ? call.mask_ld : call.d.ld);
    }

    a = call.a.transposed ? layout(call.a, call.k, call.m, call.batch)
                          : layout(call.a, call.m, call.k, call.batch);
    b = call.b.transposed ? layout(call.b, call.n, call.k, call.batch)
                          : layout(call.b, call.k, call.n, call.batch);
    d = layout(call.d, call.m, call.n, call.batch);

    check(api, "cublasLtMatmulPreferenceCreate", api.MatmulPreferenceCreate(&preference));
    const auto prefer = [&](LtPreferenceAttribute attribute, const auto& value) {
      set(api, api.MatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute", preference,
          attribute, value);
    };
    prefer(LtPreferenceAttribute::max_workspace_bytes, static_cast<uint64_t>(call.workspace));
    prefer(LtPreferenceAttribute::reduction_scheme_mask, lt_reduction_in_compute_type);
    for (const auto which : {LtPreferenceAttribute::min_alignment_a, LtPreferenceAttribute::min_alignment_b,
                             LtPreferenceAttribute::min_alignment_c, LtPreferenceAttribute::min_alignment_d})
      prefer(which, static_cast<uint32_t>(gemm_alignment));
  } catch (...) {
    release();
    throw;
  }
}

LtDescriptors::~LtDescriptors() { release(); }

void LtDescriptors::release() noexcept {
  if (preference) (void)api_.MatmulPreferenceDestroy(preference);
  for (const LtMatrixLayout m : {a, b, d})
    if (m) (void)api_.MatrixLayoutDestroy(m);
  if (desc) (void)api_.MatmulDescDestroy(desc);
}

/// As it lies in memory.
LtMatrixLayout LtDescriptors::layout(const GemmMatrix& m, int64_t rows, int64_t columns,
                                     int64_t batch) const {
  LtMatrixLayout made = nullptr;
  check(api_, "cublasLtMatrixLayoutCreate",
        api_.MatrixLayoutCreate(&made, type_of(m.dtype), static_cast<uint64_t>(rows),
                                static_cast<uint64_t>(columns), m.ld));
  if (batch == 1) return made;
  try {
    const auto of_layout = [&](LtLayoutAttribute attribute, const auto& value) {
      set(api_, api_.MatrixLayoutSetAttribute, "cublasLtMatrixLayoutSetAttribute", made, attribute, value);
    };
    of_layout(LtLayoutAttribute::batch_count, static_cast<int32_t>(batch));
    of_layout(LtLayoutAttribute::strided_batch_offset, m.stride);
  } catch (...) {
    (void)api_.MatrixLayoutDestroy(made);
    throw;
  }
  return made;
}

std::vector<LtHeuristic> lt_choices(const LtLibrary& library, const LtDescriptors& x, int most) {
  constexpr const char* function = "cublasLtMatmulAlgoGetHeuristic";
  std::vector<LtHeuristic> found(static_cast<size_t>(most));
  int count = 0;
  const Context::Current now(library.context(), function);
  const LtStatus status = library.api().MatmulAlgoGetHeuristic(library.handle(), x.desc, x.a, x.b, x.d, x.d,
                                                               x.preference, most, found.data(), &count);
  if (status == lt_not_supported || status == lt_invalid_value) return {};
  check(library.api(), function, status);
  found.resize(static_cast<size_t>(count));
  std::erase_if(found, [](const LtHeuristic& h) { return h.state != lt_success; });
  return found;
}

std::string lt_name(const LtAlgo& algo) {
  std::string out;
  for (const uint64_t word : algo.data) out += fmt::format("{:016x}", word);
  return out;
}

namespace {

std::optional<LtAlgo> lt_algo(std::string_view name) {
  constexpr size_t digits = 16;
  LtAlgo algo{};
  if (name.size() != digits * std::size(algo.data)) return std::nullopt;
  for (uint64_t& word : algo.data) {
    if (std::from_chars(name.data(), name.data() + digits, word, 16).ptr != name.data() + digits)
      return std::nullopt;
    name.remove_prefix(digits);
  }
  return algo;
}

/// The first choice, or that of the name where the library does the record by it; nothing where there is none.
std::optional<LtHeuristic> chosen_of(const LtLibrary& library, const LtDescriptors& x, const GemmCall& call,
                                     std::string_view name) {
  if (name.empty()) {
    const std::vector<LtHeuristic> found = lt_choices(library, x, 1);
    return found.empty() ? std::nullopt : std::optional(found[0]);
  }
  const std::optional<LtAlgo> algo = lt_algo(name);
  if (!algo) return std::nullopt;
  const Context::Current now(library.context(), "cublasLtMatmulAlgoCheck");
  LtHeuristic found{};
  const LtStatus status =
      library.api().MatmulAlgoCheck(library.handle(), x.desc, x.a, x.b, x.d, x.d, &*algo, &found);
  if (status != lt_success || found.state != lt_success ||
      static_cast<int64_t>(found.workspace_bytes) > call.workspace)
    return std::nullopt;
  found.algo = *algo;
  return found;
}

std::string none_text(const GemmCall& call, std::string_view name) {
  return name.empty() ? "it has no algorithm for " + asked(call)
                      : fmt::format("it has no algorithm {} for {}", name, asked(call));
}

}  // namespace

LibraryAnswer ask_lt(const LtLibrary& library, const GemmCall& call, std::string_view name) {
  const LtDescriptors descriptors(library.api(), call);
  const std::optional<LtHeuristic> found = chosen_of(library, descriptors, call, name);
  if (!found) return {.refusal = none_text(call, name)};
  return {.workspace = static_cast<int64_t>(found->workspace_bytes)};
}

LtPlan::LtPlan(std::shared_ptr<const LtLibrary> library, const GemmCall& call, std::string_view name)
    : library_(std::move(library)), call_(call), descriptors_(library_->api(), call) {
  const std::optional<LtHeuristic> found = chosen_of(*library_, descriptors_, call, name);
  if (!found)
    check(library_->api(), name.empty() ? "cublasLtMatmulAlgoGetHeuristic" : "cublasLtMatmulAlgoCheck",
          lt_not_supported, name.empty() ? asked(call) : none_text(call, name));
  chosen_ = found.value();
  ESPALIER_CHECK(workspace() <= call.workspace, "cuBLASLt wants more workspace than it was offered");
}

void LtPlan::enqueue(std::span<const Address> operands, CuStream stream) const {
  const auto pointer = [](Address a) { return reinterpret_cast<void*>(a); };
  const LtApi& api = library_->api();
  const LtDescriptors& x = descriptors_;
  size_t next = 2;
  const auto take = [&](bool there) { return there ? operands[next++] : Address{0}; };
  const Address c = take(call_.beta != 0), bias = take(has_bias(call_.epilogue)),
                mask = take(takes_mask(call_.epilogue)), d = take(true),
                second = take(has_second_result(call_.epilogue)), workspace = take(call_.workspace != 0);
  ESPALIER_CHECK(next == operands.size(), "a matrix product with a wrong number of operands");
  const Scalar alpha(call_.compute, call_.alpha), beta(call_.compute, call_.beta);
  const Context::Current now(library_->context(), "cublasLtMatmul");
  const std::lock_guard lock(addresses_);
  const auto place = [&](LtDescAttribute attribute, Address at) {
    set(api, api.MatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute", x.desc, attribute, at);
  };
  if (bias) place(LtDescAttribute::bias_pointer, bias);
  if (mask) place(LtDescAttribute::aux_pointer, mask);
  if (second)
    place(sums_operand(call_.epilogue) ? LtDescAttribute::bias_pointer : LtDescAttribute::aux_pointer,
          second);
  const LtStatus status =
      api.Matmul(library_->handle(), x.desc, alpha.data(), pointer(operands[0]), x.a, pointer(operands[1]),
                 x.b, beta.data(), pointer(c ? c : d), x.d, pointer(d), x.d, &chosen_.algo,
                 pointer(workspace), static_cast<size_t>(call_.workspace), stream);
  if (status != lt_success) check(api, "cublasLtMatmul", status, asked(call_));
}

}  // namespace espalier::target::cuda::driver
