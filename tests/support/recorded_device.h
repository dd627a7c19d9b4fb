#pragma once
// A device that notes what is put into its streams and what must be over before what, by vector clocks over the host and every
// stream. It passes everything on, but for the waits it is told to leave out.
#include <map>
#include <string>
#include <vector>

#include "target/device.h"

namespace espalier::test {

class RecordedDevice final : public target::Device {
  using Address = target::Address;
  using Clock =
      std::map<int, int64_t>;  ///< of each line of work, how much of it is over; the host is line -1

 public:
  enum class Kind { upload, launch, download };
  struct Work {
    Kind kind;
    int line;
    Clock after;  ///< what is over when this is
  };

  explicit RecordedDevice(std::shared_ptr<target::Device> device) : device_(std::move(device)) {}

  /// Everything noted since forget(), in the order in which it was asked for.
  const std::vector<Work>& work() const { return work_; }
  void forget() { work_.clear(), waits_ = 0; }
  /// The wait of that number since forget() is left out (-1: none).
  void leave_out(int wait) { left_out_ = wait; }
  int waits() const { return waits_; }
  /// Is `a` over before `b` begins, whatever the streams do?
  static bool before(const Work& a, const Work& b) {
    const auto it = b.after.find(a.line);
    const int64_t own = a.line == b.line ? 1 : 0;
    return it != b.after.end() && it->second - own >= a.after.at(a.line);
  }

  target::DeviceInfo info() const override { return device_->info(); }
  int64_t free_bytes() const override { return device_->free_bytes(); }
  std::vector<target::DeviceLibrary> libraries() override { return device_->libraries(); }
  target::LibraryAnswer ask(const target::CallRecord::Work& work) override { return device_->ask(work); }
  Address allocate(int64_t bytes) override { return device_->allocate(bytes); }
  void release(Address a) noexcept override { device_->release(a); }
  void* allocate_pinned(int64_t bytes) override { return device_->allocate_pinned(bytes); }
  void release_pinned(void* p) noexcept override { device_->release_pinned(p); }
  target::Stream make_stream() override { return device_->make_stream(); }
  target::Stream adopt_stream(void* foreign) override { return device_->adopt_stream(foreign); }
  void release(target::Stream s) noexcept override { device_->release(s); }
  target::Event make_event(bool timing) override { return device_->make_event(timing); }
  void release(target::Event e) noexcept override { device_->release(e); }
  double elapsed_ms(target::Event a, target::Event b) override { return device_->elapsed_ms(a, b); }
  bool finished(target::Event e) override { return device_->finished(e); }

  void record(target::Event e, target::Stream s) override {
    events_[static_cast<int>(e)] = enqueue(s);
    device_->record(e, s);
  }
  void wait(target::Stream s, target::Event e) override {
    if (waits_++ == left_out_) return;
    join(clocks_[static_cast<int>(s)], events_[static_cast<int>(e)]);
    device_->wait(s, e);
  }
  void sync(target::Stream s) override {
    join(clocks_[host], enqueue(s));
    device_->sync(s);
  }
  void sync(target::Event e) override {
    join(clocks_[host], events_[static_cast<int>(e)]);
    device_->sync(e);
  }
  void upload(Address to, const void* from, int64_t bytes, target::Stream s) override {
    note(Kind::upload, s);
    device_->upload(to, from, bytes, s);
  }
  void download(void* to, Address from, int64_t bytes, target::Stream s) override {
    note(Kind::download, s);
    device_->download(to, from, bytes, s);
  }
  std::unique_ptr<target::Executable> load(std::span<const target::KernelSource> sources,
                                           std::span<const target::CallRecord> calls) override {
    return device_->load(sources, calls);
  }
  void launch(const target::Executable& executable, size_t call, std::span<const Address> operands,
              target::Stream s) override {
    note(Kind::launch, s);
    device_->launch(executable, call, operands, s);
  }
  /// What is captured is not noted; a graph is one launch.
  void begin_capture(target::Stream s) override {
    device_->begin_capture(s);
    captured_ = static_cast<int>(s);
  }
  std::unique_ptr<target::DeviceGraph> end_capture(target::Stream s) override {
    captured_ = host;
    return device_->end_capture(s);
  }
  void launch(const target::DeviceGraph& graph, target::Stream s) override {
    note(Kind::launch, s);
    device_->launch(graph, s);
  }

  std::vector<std::string> choices(const target::CallRecord::Work& work, int most) override {
    return device_->choices(work, most);
  }
  void use(std::shared_ptr<const target::Ways> ways) override { device_->use(std::move(ways)); }
  std::shared_ptr<const target::Ways> used() const override { return device_->used(); }
  bool is_watched() const override { return device_->is_watched(); }
  void begin_range(const char* name) override { device_->begin_range(name); }
  void end_range() noexcept override { device_->end_range(); }
  std::string why_no_capture(target::Stream s) const override { return device_->why_no_capture(s); }
  Entered enter() override { return device_->enter(); }
  void leave(const Entered& entered) noexcept override { device_->leave(entered); }

 private:
  static constexpr int host = -1;

  static void join(Clock& a, const Clock& b) {
    for (const auto& [line, time] : b) a[line] = std::max(a[line], time);
  }
  /// The stream's clock with one more piece of work, which begins after all that the host has waited for.
  Clock enqueue(target::Stream s) {
    Clock& clock = clocks_[static_cast<int>(s)];
    join(clock, clocks_[host]);
    ++clock[static_cast<int>(s)];
    return clock;
  }
  void note(Kind kind, target::Stream s) {
    if (static_cast<int>(s) != captured_) work_.push_back({kind, static_cast<int>(s), enqueue(s)});
  }

  std::shared_ptr<target::Device> device_;
  std::map<int, Clock> clocks_, events_;
  std::vector<Work> work_;
  int waits_ = 0, left_out_ = -1, captured_ = host;
};

}  // namespace espalier::test
