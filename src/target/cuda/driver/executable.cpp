#include "target/cuda/driver/executable.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <map>
#include <set>

namespace espalier::target::cuda::driver {

/// What a launch of any driver can carry.
constexpr size_t parameter_bytes = 4096;

class Module {
 public:
  Module(std::shared_ptr<const Context> context, const KernelImage& image) : context_(std::move(context)) {
    context_->call("cuModuleLoadData", &CuApi::ModuleLoadData, &module_, image.bytes.c_str());
  }
  ~Module() { context_->give_back("cuModuleUnload", &CuApi::ModuleUnload, module_); }
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  CuFunction function(const std::string& name) const {
    CuFunction function = nullptr;
    context_->call("cuModuleGetFunction", &CuApi::ModuleGetFunction, &function, module_, name.c_str());
    return function;
  }

 private:
  std::shared_ptr<const Context> context_;
  CuModule module_ = nullptr;
};

namespace {

class ReadyKernel final : public ReadyCall {
 public:
  ReadyKernel(CuFunction function, const KernelCall& call) : function_(function), call_(call) {}

  void enqueue(const Context& context, std::span<const Address> operands, CuStream stream) const override {
    std::array<void*, parameter_bytes / sizeof(Address) + 1> parameters;
    for (size_t i = 0; i < operands.size(); ++i) parameters[i] = const_cast<Address*>(&operands[i]);
    parameters[operands.size()] = nullptr;  // the simulated driver sees where they end
    const Grid &g = call_.grid, &b = call_.block;
    const CuResult error =
        context.answer("cuLaunchKernel", &CuApi::LaunchKernel, function_, g.x, g.y, g.z, b.x, b.y, b.z,
                       static_cast<unsigned>(call_.shared_bytes), stream, parameters.data(), nullptr);
    if (error != cu_success)
      context.fail("cuLaunchKernel", error,
                   fmt::format("kernel {}, {} blocks of {} threads", call_.kernel, g.count(), b.count()));
  }

 private:
  CuFunction function_;
  KernelCall call_;
};

class ReadyCopy final : public ReadyCall {
 public:
  explicit ReadyCopy(const CopyCall& call) : bytes_(static_cast<size_t>(call.bytes)) {}
  void enqueue(const Context& context, std::span<const Address> operands, CuStream stream) const override {
    if (bytes_ > 0)
      context.call("cuMemcpyDtoDAsync", &CuApi::MemcpyDtoDAsync, operands[1], operands[0], bytes_, stream);
  }

 private:
  size_t bytes_;
};

class ReadyFill final : public ReadyCall {
 public:
  explicit ReadyFill(const FillCall& call) : call_(call) {}
  void enqueue(const Context& context, std::span<const Address> operands, CuStream stream) const override {
    if (call_.bytes > 0)
      context.call("cuMemsetD8Async", &CuApi::MemsetD8Async, operands[0], call_.byte,
                   static_cast<size_t>(call_.bytes), stream);
  }

 private:
  FillCall call_;
};

class ReadyGemm final : public ReadyCall {
 public:
  ReadyGemm(std::shared_ptr<const LtLibrary> library, const GemmCall& call, std::string_view way)
      : plan_(std::move(library), call, way) {}
  void enqueue(const Context&, std::span<const Address> operands, CuStream stream) const override {
    plan_.enqueue(operands, stream);
  }

 private:
  LtPlan plan_;
};

class ReadyConv final : public ReadyCall {
 public:
  ReadyConv(std::shared_ptr<const DnnLibrary> library, const ConvCall& call, std::string_view way)
      : library_(std::move(library)), call_(call), plan_(library_->plan(call, way)) {}
  void enqueue(const Context&, std::span<const Address> operands, CuStream stream) const override {
    library_->enqueue(call_, *plan_, operands, stream);
  }

 private:
  std::shared_ptr<const DnnLibrary> library_;
  ConvCall call_;
  std::shared_ptr<const DnnPlan> plan_;
};

using Functions = std::map<std::string, CuFunction, std::less<>>;

/// One ready() for every record of CallRecord.
struct Maker {
  const Context& context;
  const Functions& functions;
  LazyLt& lt;
  LazyDnn& dnn;
  const Ways* ways;

  std::string_view way(const CallRecord& record) const {
    return ways ? ways->find(record.work) : std::string_view();
  }
  std::unique_ptr<ReadyCall> ready(const KernelCall& call, const CallRecord& record) const {
    const auto it = functions.find(call.kernel);
    ESPALIER_CHECK(it != functions.end(), "no source of the kernel " + call.kernel);
    ESPALIER_CHECK(record.operands.size() * sizeof(Address) <= parameter_bytes,
                   call.kernel + " has more operands than a launch carries");
    int most = 0;
    context.call("cuFuncGetAttribute", &CuApi::FuncGetAttribute, &most,
                 CuFunctionAttribute::max_threads_per_block, it->second);
    ESPALIER_CHECK(call.block.count() <= most,
                   fmt::format("{} is launched with {} threads a block and may have {}", call.kernel,
                               call.block.count(), most));
    if (call.shared_bytes > 0) opt_in(call, it->second);
    return std::make_unique<ReadyKernel>(it->second, call);
  }
  /// More shared memory than any launch may have must be asked for, once.
  void opt_in(const KernelCall& call, CuFunction function) const {
    int may = 0, most = 0;
    context.call("cuFuncGetAttribute", &CuApi::FuncGetAttribute, &may,
                 CuFunctionAttribute::max_dynamic_shared_bytes, function);
    if (call.shared_bytes <= may) return;
    context.call("cuDeviceGetAttribute", &CuApi::DeviceGetAttribute, &most,
                 CuAttribute::shared_per_block_opt_in, context.device());
    if (call.shared_bytes > most)
      throw DeviceError(
          {fmt::format("device {}, kernel {}", context.device_name(), call.kernel),
           "needs more shared memory than a block may have here", fmt::format("{} bytes", call.shared_bytes),
           fmt::format("at most {} bytes: a program planned for this device", most)},
          false);
    context.call("cuFuncSetAttribute", &CuApi::FuncSetAttribute, function,
                 CuFunctionAttribute::max_dynamic_shared_bytes, static_cast<int>(call.shared_bytes));
  }
  std::unique_ptr<ReadyCall> ready(const CopyCall& call, const CallRecord& record) const {
    ESPALIER_CHECK(record.operands.size() == 2, "a copy has two operands");
    return std::make_unique<ReadyCopy>(call);
  }
  std::unique_ptr<ReadyCall> ready(const FillCall& call, const CallRecord& record) const {
    ESPALIER_CHECK(record.operands.size() == 1, "a fill has one operand");
    return std::make_unique<ReadyFill>(call);
  }
  std::unique_ptr<ReadyCall> ready(const ConvCall& call, const CallRecord& record) const {
    ESPALIER_CHECK(record.operands.size() == static_cast<size_t>(conv_operands(call)),
                   "a convolution has another number of operands");
    return std::make_unique<ReadyConv>(dnn.get(), call, way(record));
  }
  std::unique_ptr<ReadyCall> ready(const GemmCall& call, const CallRecord& record) const {
    return std::make_unique<ReadyGemm>(lt.get(), call, way(record));
  }
};

std::vector<KernelSource> without_repeats(std::span<const KernelSource> sources) {
  std::vector<KernelSource> out;
  std::set<std::string_view> seen;
  for (const KernelSource& s : sources)
    if (seen.insert(s.name).second) out.push_back(s);
  return out;
}

}  // namespace

CudaExecutable::CudaExecutable(std::shared_ptr<const Context> context,
                               std::vector<std::unique_ptr<Module>> modules, std::vector<Call> calls,
                               const LoadReport& report)
    : context_(std::move(context)), modules_(std::move(modules)), calls_(std::move(calls)), report_(report) {}

CudaExecutable::~CudaExecutable() = default;

void CudaExecutable::enqueue(size_t call, std::span<const Address> operands, CuStream stream) const {
  ESPALIER_CHECK(call < calls_.size(), "a call that the executable does not have");
  const Call& c = calls_[call];
  ESPALIER_CHECK(operands.size() == c.operands,
                 fmt::format("call {} has {} operands and was given {}", call, c.operands, operands.size()));
  c.ready->enqueue(*context_, operands, stream);
}

std::unique_ptr<CudaExecutable> load_executable(const Loader& loader, std::span<const KernelSource> sources,
                                                std::span<const CallRecord> calls) {
  const auto start = std::chrono::steady_clock::now();
  LoadReport report;
  std::vector<std::unique_ptr<Module>> modules;
  Functions functions;
  if (const std::vector<KernelSource> distinct = without_repeats(sources); !distinct.empty())
    for (const KernelImage& image : loader.compiler.compile(distinct, loader.capability)) {
      modules.push_back(std::make_unique<Module>(loader.context, image));
      (image.prebuilt ? report.prebuilt
       : image.found  ? report.found
                      : report.compiled) += static_cast<int64_t>(image.kernels.size());
      for (const std::string& name : image.kernels) functions[name] = modules.back()->function(name);
    }
  const Maker maker{*loader.context, functions, loader.lt, loader.dnn, loader.ways};
  std::vector<CudaExecutable::Call> ready;
  for (const CallRecord& record : calls)
    ready.push_back({std::visit([&](const auto& work) { return maker.ready(work, record); }, record.work),
                     record.operands.size()});
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::make_unique<CudaExecutable>(loader.context, std::move(modules), std::move(ready), report);
}

}  // namespace espalier::target::cuda::driver
