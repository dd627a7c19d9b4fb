#include "target/cuda/sim/sim_lt.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "target/cuda/sim/sim_driver.h"
#include "target/cuda/sim/sim_gemm.h"

namespace espalier::target::cuda::sim {

using namespace driver;

namespace {

/// Keep `data`, and give out its address as the handle of it.
template <class Handle, class Data>
LtStatus keep(std::map<Handle, std::unique_ptr<Data>>& all, Handle* handle, const Data& data) {
  auto owned = std::make_unique<Data>(data);
  *handle = reinterpret_cast<Handle>(owned.get());
  all.emplace(*handle, std::move(owned));
  return lt_success;
}

template <class Handle, class Data>
Data* find(const std::map<Handle, std::unique_ptr<Data>>& all, Handle handle) {
  const auto it = all.find(handle);
  return it == all.end() ? nullptr : it->second.get();
}

template <class Handle, class Data>
LtStatus destroy_in(std::map<Handle, std::unique_ptr<Data>>& all, Handle handle) {
  return all.erase(handle) == 1 ? lt_success : lt_invalid_value;
}

template <class T>
LtStatus take(T& to, const void* value, size_t bytes) {
  if (bytes != sizeof to) return lt_invalid_value;
  std::memcpy(&to, value, bytes);
  return lt_success;
}

std::optional<ir::Dtype> dtype_of(LtType type) {
  switch (type) {
    case LtType::r_32f: return ir::Dtype::f32;
    case LtType::r_64f: return ir::Dtype::f64;
    case LtType::r_16f: return ir::Dtype::f16;
    case LtType::r_8i: return ir::Dtype::i8;
    case LtType::r_32i: return ir::Dtype::i32;
    case LtType::r_16bf: return ir::Dtype::bf16;
  }
  return {};
}

std::optional<ir::Dtype> dtype_of(LtCompute compute) {
  switch (compute) {
    case LtCompute::f32:
    case LtCompute::f32_fast_tf32: return ir::Dtype::f32;
    case LtCompute::f64: return ir::Dtype::f64;
    case LtCompute::i32: return ir::Dtype::i32;
  }
  return {};
}

std::optional<GemmEpilogue> epilogue_of(LtEpilogue epilogue) {
  switch (epilogue) {
    case LtEpilogue::none: return GemmEpilogue::none;
    case LtEpilogue::bias: return GemmEpilogue::bias;
    case LtEpilogue::relu: return GemmEpilogue::relu;
    case LtEpilogue::relu_bias: return GemmEpilogue::relu_bias;
    case LtEpilogue::gelu: return GemmEpilogue::gelu;
    case LtEpilogue::gelu_bias: return GemmEpilogue::gelu_bias;
    case LtEpilogue::gelu_aux: return GemmEpilogue::gelu_aux;
    case LtEpilogue::gelu_aux_bias: return GemmEpilogue::gelu_aux_bias;
    case LtEpilogue::relu_aux: return GemmEpilogue::relu_aux;
    case LtEpilogue::relu_aux_bias: return GemmEpilogue::relu_aux_bias;
    case LtEpilogue::drelu: return GemmEpilogue::drelu;
    case LtEpilogue::sum_a: return GemmEpilogue::sum_a;
    case LtEpilogue::sum_b: return GemmEpilogue::sum_b;
  }
  return {};
}

double factor(const void* value, ir::Dtype dtype) {
  if (dtype == ir::Dtype::f64) return *static_cast<const double*>(value);
  if (dtype == ir::Dtype::f32) return *static_cast<const float*>(value);
  return *static_cast<const int32_t*>(value);
}

bool same(const SimLt::LayoutData& x, const SimLt::LayoutData& y) {
  return x.type == y.type && x.rows == y.rows && x.columns == y.columns && x.ld == y.ld &&
         x.batch == y.batch && x.stride == y.stride;
}

Address address_of(const void* p) { return reinterpret_cast<Address>(p); }

/// What the stream does when its turn comes.
struct Product {
  const GemmCall& call;
  std::span<const Address> operands;
  const MemoryMap& memory;
  std::string problem;

  static void run(void* self) {
    auto& p = *static_cast<Product*>(self);
    try {
      run_gemm(p.call, p.operands, [&](Address at, int64_t bytes) {
        return p.memory.check(at, static_cast<size_t>(bytes)).empty();
      });
    } catch (const InternalError& e) {
      p.problem = e.what();
    }
  }
};

}  // namespace

size_t sim_lt_version() { return 130000; }

const char* sim_lt_status(LtStatus status) {
  switch (status) {
    case lt_success: return "success";
    case lt_not_initialized: return "not initialized";
    case lt_invalid_value: return "an invalid value";
    case lt_not_supported: return "not supported";
    default: return "unknown";
  }
}

LtStatus SimLt::create(LtHandle* handle) {
  CuResult error = cu_success;
  SimContext* context = state.current(error);
  return context ? keep(handles, handle, HandleData{context}) : lt_not_initialized;
}
LtStatus SimLt::destroy(LtHandle handle) { return destroy_in(handles, handle); }

LtStatus SimLt::desc_create(Desc* desc, LtCompute compute, LtType scale) {
  return keep(descs, desc, DescData{.compute = compute, .scale = scale});
}
LtStatus SimLt::desc_destroy(Desc desc) { return destroy_in(descs, desc); }

LtStatus SimLt::desc_set(Desc desc, LtDescAttribute attribute, const void* value, size_t bytes) {
  DescData* d = find(descs, desc);
  if (!d) return lt_invalid_value;
  switch (attribute) {
    case LtDescAttribute::transpose_a: return take(d->a, value, bytes);
    case LtDescAttribute::transpose_b: return take(d->b, value, bytes);
    case LtDescAttribute::epilogue: return take(d->epilogue, value, bytes);
    case LtDescAttribute::bias_pointer: return take(d->bias, value, bytes);
    case LtDescAttribute::aux_pointer: return take(d->aux, value, bytes);
    case LtDescAttribute::aux_ld: return take(d->aux_ld, value, bytes);
  }
  return lt_invalid_value;
}

LtStatus SimLt::layout_create(Layout* layout, LtType type, uint64_t rows, uint64_t columns, int64_t ld) {
  return keep(layouts, layout, LayoutData{.type = type, .rows = rows, .columns = columns, .ld = ld});
}
LtStatus SimLt::layout_destroy(Layout layout) { return destroy_in(layouts, layout); }

LtStatus SimLt::layout_set(Layout layout, LtLayoutAttribute attribute, const void* value, size_t bytes) {
  LayoutData* l = find(layouts, layout);
  if (!l) return lt_invalid_value;
  switch (attribute) {
    case LtLayoutAttribute::batch_count: return take(l->batch, value, bytes);
    case LtLayoutAttribute::strided_batch_offset: return take(l->stride, value, bytes);
  }
  return lt_invalid_value;
}

LtStatus SimLt::preference_create(Preference* preference) {
  return keep(preferences, preference, PreferenceData{});
}
LtStatus SimLt::preference_destroy(Preference preference) { return destroy_in(preferences, preference); }

LtStatus SimLt::preference_set(Preference preference, LtPreferenceAttribute attribute, const void* value,
                               size_t bytes) {
  PreferenceData* p = find(preferences, preference);
  if (!p) return lt_invalid_value;
  switch (attribute) {
    case LtPreferenceAttribute::max_workspace_bytes: return take(p->workspace, value, bytes);
    case LtPreferenceAttribute::reduction_scheme_mask: return take(p->reductions, value, bytes);
    case LtPreferenceAttribute::min_alignment_a: return take(p->alignment[0], value, bytes);
    case LtPreferenceAttribute::min_alignment_b: return take(p->alignment[1], value, bytes);
    case LtPreferenceAttribute::min_alignment_c: return take(p->alignment[2], value, bytes);
    case LtPreferenceAttribute::min_alignment_d: return take(p->alignment[3], value, bytes);
  }
  return lt_invalid_value;
}

std::unique_ptr<GemmCall> SimLt::record(Desc desc, Layout a, Layout b, Layout c, Layout d) const {
  const DescData* x = find(descs, desc);
  const LayoutData *la = find(layouts, a), *lb = find(layouts, b), *lc = find(layouts, c),
                   *ld = find(layouts, d);
  if (!x || !la || !lb || !lc || !ld || !same(*lc, *ld)) return nullptr;
  if (la->batch != ld->batch || lb->batch != ld->batch) return nullptr;
  const bool ta = x->a == LtOperation::transpose, tb = x->b == LtOperation::transpose;
  const uint64_t k = ta ? la->rows : la->columns;
  if ((ta ? la->columns : la->rows) != ld->rows || (tb ? lb->columns : lb->rows) != k ||
      (tb ? lb->rows : lb->columns) != ld->columns)
    return nullptr;
  const auto compute = dtype_of(x->compute), scale = dtype_of(x->scale);
  const auto da = dtype_of(la->type), db = dtype_of(lb->type), dd = dtype_of(ld->type);
  const auto epilogue = epilogue_of(x->epilogue);
  if (!compute || scale != compute || !da || !db || !dd || !epilogue) return nullptr;
  if ((has_bias(*epilogue) || sums_operand(*epilogue)) && x->bias == 0) return nullptr;
  if (keeps_gelu_operand(*epilogue) && (x->aux == 0 || x->aux_ld != ld->ld)) return nullptr;
  const bool mask = gives_mask(*epilogue) || takes_mask(*epilogue);
  if (mask && (x->aux == 0 || x->aux % gemm_alignment != 0)) return nullptr;
  return std::make_unique<GemmCall>(GemmCall{
      .m = static_cast<int64_t>(ld->rows),
      .n = static_cast<int64_t>(ld->columns),
      .k = static_cast<int64_t>(k),
      .batch = ld->batch,
      .a = {.dtype = *da, .transposed = ta, .ld = la->ld, .stride = la->stride},
      .b = {.dtype = *db, .transposed = tb, .ld = lb->ld, .stride = lb->stride},
      .d = {.dtype = *dd, .transposed = false, .ld = ld->ld, .stride = ld->stride},
      .compute = *compute,
      .tf32 = x->compute == LtCompute::f32_fast_tf32,
      .epilogue = *epilogue,
      .mask_ld = mask ? x->aux_ld : 0,
  });
}

/// One algorithm: it wants room for the result in the type of the computation, as far as there is any.
LtStatus SimLt::heuristic(LtHandle handle, Desc desc, Layout a, Layout b, Layout c, Layout d,
                          Preference preference, int wanted, LtHeuristic* found, int* count) {
  const PreferenceData* p = find(preferences, preference);
  const auto call = record(desc, a, b, c, d);
  *count = 0;
  if (!find(handles, handle) || !p || !call || wanted < 1) return lt_invalid_value;
  const bool aligned = std::all_of(std::begin(p->alignment), std::end(p->alignment),
                                   [](uint32_t bytes) { return bytes <= gemm_alignment; });
  if (!aligned || !refuse_gemm(*call).empty() || state.options.lt_lacks == call->epilogue)
    return lt_not_supported;
  const uint64_t most = std::min<uint64_t>(p->workspace, static_cast<uint64_t>(call->m * call->n) * 4);
  for (; *count < std::min(wanted, state.options.ways.count); ++*count) {
    const auto way = static_cast<uint64_t>(*count);
    found[way] = {};
    found[way].workspace_bytes = most >> way;
    found[way].algo.data[0] = found[way].workspace_bytes;
    found[way].algo.data[1] = way;
    found[way].state = lt_success;
  }
  return lt_success;
}

LtStatus SimLt::check(LtHandle handle, Desc desc, Layout a, Layout b, Layout c, Layout d, const LtAlgo* algo,
                      LtHeuristic* found) {
  const auto call = record(desc, a, b, c, d);
  if (!find(handles, handle) || !call || !algo) return lt_invalid_value;
  if (!refuse_gemm(*call).empty() || algo->data[1] >= static_cast<uint64_t>(state.options.ways.count))
    return lt_not_supported;
  *found = {};
  found->workspace_bytes = algo->data[0];
  found->state = lt_success;
  return lt_success;
}

LtStatus SimLt::matmul(LtHandle handle, Desc desc, const void* alpha, const void* a, Layout a_layout,
                       const void* b, Layout b_layout, const void* beta, const void* c, Layout c_layout,
                       void* d, Layout d_layout, const LtAlgo* algo, void* workspace, size_t workspace_bytes,
                       CuStream stream) {
  CuResult error = cu_success;
  const HandleData* h = find(handles, handle);
  const auto s = state.find(stream, error);
  const auto call = record(desc, a_layout, b_layout, c_layout, d_layout);
  if (!h || !s || &s->context != h->context || !call || !algo || algo->data[0] > workspace_bytes)
    return lt_invalid_value;
  const auto way = static_cast<int>(algo->data[1]);
  if (!refuse_gemm(*call).empty() || way == state.options.ways.failing) return lt_not_supported;
  ++state.ways_taken["cublaslt " + std::to_string(way)];
  call->alpha = factor(alpha, call->compute);
  call->beta = factor(beta, call->compute);
  call->workspace = static_cast<int64_t>(workspace_bytes);
  std::vector<Address> operands{address_of(a), address_of(b)};
  if (call->beta != 0) operands.push_back(address_of(c));
  if (has_bias(call->epilogue)) operands.push_back(find(descs, desc)->bias);
  if (takes_mask(call->epilogue)) operands.push_back(find(descs, desc)->aux);
  operands.push_back(address_of(d));
  const size_t beside = operands.size();
  if (sums_operand(call->epilogue)) operands.push_back(find(descs, desc)->bias);
  if (keeps_gelu_operand(call->epilogue) || gives_mask(call->epilogue))
    operands.push_back(find(descs, desc)->aux);
  if (workspace_bytes != 0) operands.push_back(address_of(workspace));
  void* wrong = way == state.options.ways.wrong ? d : nullptr;
  if (way == state.options.ways.wrong_beside &&
      (sums_operand(call->epilogue) || keeps_gelu_operand(call->epilogue)))
    wrong = reinterpret_cast<void*>(operands[beside]);
  s->add([this, call = *call, operands, wrong, used = static_cast<size_t>(algo->data[0])](SimStream& self) {
    SimContext& context = self.context;
    Product product{call, operands, context.memory, ""};
    self.worker.run(&Product::run, &product);
    if (!product.problem.empty())
      return void(state.lose(context, cu_error_illegal_address, "a matrix product: " + product.problem));
    if (wrong) self.worker.fill(wrong, wrong_byte, static_cast<size_t>(ir::dtype_size(call.d.dtype)));
    if (used != 0) self.worker.fill(reinterpret_cast<void*>(operands.back()), 0xA5, used);
  });
  return lt_success;
}

}  // namespace espalier::target::cuda::sim
