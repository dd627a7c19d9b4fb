#include "target/cpu/compile.h"

#include <emitter_hash.h>

#include <functional>

#include "base/error.h"
#include "base/object_cache.h"
#include "base/threads.h"
#include "target/cpu/emit/emit_nest.h"
#include "target/cpu/emit/schedule.h"
#include "target/cpu/jit/compile_ir.h"
#include "target/cpu/jit/elf_loader.h"
#include "target/cpu/jit/llvm_api.h"
#include "target/cpu/jit/math_symbols.h"

namespace espalier::target::cpu {
namespace {

std::string cache_key(const std::string& text, const CpuFeatures& features) {
  return "espalier kernel " + std::string(emitter_hash) + ", LLVM " + std::to_string(llvm_version) + ", " +
         features.text() + "\n" + text;
}

std::shared_ptr<const LoadedObject> load(const std::string& object) {
  return std::make_shared<const LoadedObject>(
      LoadedObject::load(std::as_bytes(std::span(object)), kernel_symbols()));
}

/// The object of the cache, or nothing where there is none or it does not load.
std::shared_ptr<const LoadedObject> cached(const std::string& key) {
  const std::optional<std::string> object = object_cache().find(key);
  if (!object) return nullptr;
  try {
    auto loaded = load(*object);
    if (loaded->symbol("kernel")) return loaded;
  } catch (const UserError&) {  // damaged in a way the checksum does not show: compiled again
  }
  object_cache().reject(key);
  return nullptr;
}

/// Machine code of the kernel that `text` says all of, from the cache or from the IR that `emit` writes.
void load_kernel(const std::string& text, const CpuFeatures& features,
                 const std::function<std::string()>& emit, CompiledKernel& out) {
  const std::string key = cache_key(text, features);
  std::shared_ptr<const LoadedObject> loaded = cached(key);
  if (!loaded) {
    const std::string object = compile_ir(emit(), features);
    object_cache().store(key, object);
    loaded = load(object);
  }
  out.fn = reinterpret_cast<KernelFn>(const_cast<void*>(loaded->symbol("kernel")));
  ESPALIER_CHECK(out.fn != nullptr, "a compiled kernel lacks its entry");
  out.code = loaded;
}

}  // namespace

std::string emitted_ir(const kernel::LoopNest& nest, const CpuFeatures& features) {
  return emit_ir(schedule(nest, features.lanes()), features);
}

CompiledKernel compile(const kernel::LoopNest& nest, const CpuFeatures& features) {
  const Schedule plan = schedule(nest, features.lanes());
  CompiledKernel out;
  out.chunks = plan.chunks;
  out.cost_ns = plan.cost_ns;
  for (int v : nest.outer)
    if (nest.extent(v) == 0) {
      out.chunks = 0;
      return out;
    }
  load_kernel(
      nest.text(), features, [&] { return emit_ir(plan, features); }, out);
  return out;
}

CompiledKernel compile(const BatchConv& conv, const BatchConvPlan& plan, const CpuFeatures& features) {
  CompiledKernel out;
  out.chunks = plan.chunks;
  out.cost_ns = plan.cycles * 0.25;
  load_kernel(
      conv.text(), features, [&] { return emit_batch_conv(conv, plan, features); }, out);
  return out;
}

std::vector<CompiledKernel> compile(std::span<const kernel::LoopNest> nests, const CpuFeatures& features) {
  std::vector<CompiledKernel> out(nests.size());
  parallel_for(static_cast<int64_t>(nests.size()), [&](int64_t i) {
    out[static_cast<size_t>(i)] = compile(nests[static_cast<size_t>(i)], features);
  });
  return out;
}

}  // namespace espalier::target::cpu
