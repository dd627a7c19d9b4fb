#pragma once
// A device that does everything at once, in the host's memory, each allocation beside a guard page: what an executor asks for, without
// the delays of the simulated driver. It counts what it has given out.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>

#include "support/arrays.h"
#include "target/cuda/sim/kernel_library.h"
#include "target/device.h"

namespace espalier::test {

class PlainDevice final : public target::Device {
  using Address = target::Address;

  class Loaded final : public target::Executable {
   public:
    Loaded(std::span<const target::KernelSource> sources, std::span<const target::CallRecord> calls)
        : calls(calls.begin(), calls.end()) {
      for (const target::KernelSource& s : sources) by_name[s.name] = s;
      if (!sources.empty()) kernels.emplace(sources);
    }
    std::vector<target::CallRecord> calls;
    std::map<std::string, target::KernelSource> by_name;
    std::optional<target::cuda::sim::KernelLibrary> kernels;
  };

 public:
  ~PlainDevice() override { EXPECT_EQ(alive(), 0u) << "something of the device was not given back"; }
  size_t alive() const { return memory_.size() + pinned_.size() + handles_.size(); }
  int64_t free = int64_t{1} << 40;  ///< what it says is free
  /// Called after each call with the addresses of its operands.
  std::function<void(std::span<void* const>)> after_launch;

  target::DeviceInfo info() const override { return {.name = "plain"}; }
  int64_t free_bytes() const override { return free; }
  Address allocate(int64_t bytes) override {
    auto buffer = std::make_unique<GuardedBuffer>(static_cast<size_t>(round_up(bytes, 256)));
    std::memset(buffer->data(), 0xff, static_cast<size_t>(bytes));
    const auto at = reinterpret_cast<Address>(buffer->data());
    memory_[at] = std::move(buffer);
    return at;
  }
  void release(Address address) noexcept override { EXPECT_EQ(memory_.erase(address), 1u); }
  void* allocate_pinned(int64_t bytes) override {
    return *pinned_.insert(std::aligned_alloc(256, static_cast<size_t>(round_up(bytes, 256)))).first;
  }
  void release_pinned(void* data) noexcept override {
    EXPECT_EQ(pinned_.erase(data), 1u);
    std::free(data);
  }
  target::Stream make_stream() override { return target::Stream{handle()}; }
  target::Stream adopt_stream(void*) override { return target::Stream{handle()}; }
  void release(target::Stream s) noexcept override { EXPECT_EQ(handles_.erase(static_cast<int>(s)), 1u); }
  target::Event make_event(bool) override { return target::Event{handle()}; }
  void release(target::Event e) noexcept override { EXPECT_EQ(handles_.erase(static_cast<int>(e)), 1u); }
  void record(target::Event, target::Stream) override {}
  void wait(target::Stream, target::Event) override {}
  void sync(target::Stream) override {}
  void sync(target::Event) override {}
  bool finished(target::Event) override { return true; }
  double elapsed_ms(target::Event, target::Event) override { return 0; }
  void upload(Address to, const void* from, int64_t bytes, target::Stream) override {
    std::memcpy(reinterpret_cast<void*>(to), from, static_cast<size_t>(bytes));
  }
  void download(void* to, Address from, int64_t bytes, target::Stream) override {
    std::memcpy(to, reinterpret_cast<const void*>(from), static_cast<size_t>(bytes));
  }
  std::unique_ptr<target::Executable> load(std::span<const target::KernelSource> sources,
                                           std::span<const target::CallRecord> calls) override {
    return std::make_unique<Loaded>(sources, calls);
  }
  void launch(const target::Executable& executable, size_t call, std::span<const Address> operands,
              target::Stream) override {
    const auto& loaded = static_cast<const Loaded&>(executable);
    std::vector<void*> at;
    for (const Address a : operands) at.push_back(reinterpret_cast<void*>(a));
    ++launches_;
    run(loaded, loaded.calls.at(call).work, at);
    if (after_launch) after_launch(at);
  }

 private:
  int handle() { return *handles_.insert(++last_).first; }
  void run(const Loaded& loaded, const target::CallRecord::Work& work, std::span<void* const> at) {
    if (const auto* copy = std::get_if<target::CopyCall>(&work)) {
      std::memmove(at[1], at[0], static_cast<size_t>(copy->bytes));
    } else if (const auto* fill = std::get_if<target::FillCall>(&work)) {
      std::memset(at[0], fill->byte, static_cast<size_t>(fill->bytes));
    } else {
      const auto& kernel = std::get<target::KernelCall>(work);
      const auto order = static_cast<target::cuda::sim::Order>(launches_ % 3);
      loaded.kernels->launch(loaded.by_name.at(kernel.kernel), kernel, at,
                             {order, static_cast<uint64_t>(launches_)});
    }
  }

  std::map<Address, std::unique_ptr<GuardedBuffer>> memory_;
  std::set<void*> pinned_;
  std::set<int> handles_;
  int last_ = 0, launches_ = 0;
};

}  // namespace espalier::test
