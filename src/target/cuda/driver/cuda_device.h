#pragma once
// A GPU through NVIDIA's driver, or through what stands for that driver in tests.
#include <memory>
#include <mutex>
#include <unordered_map>

#include "target/cuda/driver/context.h"
#include "target/cuda/driver/dnn_engine.h"
#include "target/cuda/driver/kernel_compiler.h"
#include "target/cuda/driver/lt_engine.h"
#include "target/cuda/driver/nvtx.h"
#include "target/cuda/driver/tables/nvml.h"

namespace espalier::target::cuda::driver {

class CudaDevice final : public Device {
 public:
  /// What a device is made of. `nvml` null: sensors are unknown. `lt` and `dnn` are asked when
  /// a program with matrix products, or with convolutions, is first loaded. `keeps`: what the tables live in, where that is not the process.
  struct Parts {
    const CuApi& cu;
    const NvmlApi* nvml = nullptr;
    FindLt lt;
    FindDnn dnn;
    std::shared_ptr<KernelCompiler> compiler;
    ObjectCache* plans = nullptr;  ///< of cuDNN; null: none are kept on disk
    const Nvtx* nvtx = nullptr;    ///< null: no tool watches
    std::shared_ptr<const void> keeps;
  };
  /// Device `index` of those that the driver shows. DeviceError where it cannot be had.
  CudaDevice(const Parts& parts, int index);
  ~CudaDevice() override;

  DeviceInfo info() const override;
  int64_t free_bytes() const override;
  int64_t taken_bytes() const override { return free_before_ - free_bytes(); }
  std::vector<DeviceLibrary> libraries() override;
  LibraryAnswer ask(const CallRecord::Work& work) override;
  std::string described_by(std::string_view library) override;
  std::vector<std::string> choices(const CallRecord::Work& work, int most) override;
  void use(std::shared_ptr<const Ways> ways) override;
  std::shared_ptr<const Ways> used() const override;

  Address allocate(int64_t bytes) override;
  void release(Address address) noexcept override;
  void* allocate_pinned(int64_t bytes) override;
  void release_pinned(void* data) noexcept override;

  Stream make_stream() override;
  Stream adopt_stream(void* foreign) override;
  void* foreign(Stream stream) const override { return handle_of(stream); }
  void release(Stream stream) noexcept override;
  Event make_event(bool timing) override;
  void release(Event event) noexcept override;

  void record(Event event, Stream stream) override;
  void wait(Stream stream, Event event) override;
  void sync(Stream stream) override;
  void sync(Event event) override;
  bool finished(Event event) override;
  double elapsed_ms(Event from, Event to) override;

  void upload(Address to, const void* from, int64_t bytes, Stream stream) override;
  void download(void* to, Address from, int64_t bytes, Stream stream) override;

  std::unique_ptr<Executable> load(std::span<const KernelSource> sources,
                                   std::span<const CallRecord> calls) override;
  void launch(const Executable& executable, size_t call, std::span<const Address> operands,
              Stream stream) override;

  void begin_capture(Stream stream) override;
  std::string why_no_capture(Stream stream) const override;
  std::unique_ptr<DeviceGraph> end_capture(Stream stream) override;
  void launch(const DeviceGraph& graph, Stream stream) override;

  bool is_watched() const override { return nvtx_ && nvtx_->attached(); }
  void begin_range(const char* name) override { nvtx_->begin(name); }
  void end_range() noexcept override { nvtx_->end(); }

  Entered enter() override;
  void leave(const Entered& entered) noexcept override;

 private:
  struct OwnedStream {
    CuStream handle;
    bool foreign;
  };
  struct OwnedEvent {
    CuEvent handle;
    bool timing;
  };
  CuStream handle_of(Stream stream) const;
  OwnedEvent known(Event event) const;

  std::shared_ptr<const void> keeps_;
  const NvmlApi* nvml_;
  const Nvtx* nvtx_;
  int index_;
  int64_t free_before_;
  std::shared_ptr<const Context> context_;
  std::shared_ptr<KernelCompiler> compiler_;
  int capability_ = 0;
  LazyLt lt_;
  LazyDnn dnn_;

  mutable std::mutex numbers_;
  std::unordered_map<int32_t, OwnedStream> streams_;
  std::unordered_map<int32_t, OwnedEvent> events_;
  int32_t next_ = 1;
  std::shared_ptr<const Ways> ways_;
};

}  // namespace espalier::target::cuda::driver
