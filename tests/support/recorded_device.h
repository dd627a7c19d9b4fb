#pragma once
// A device that notes what is put into its streams and what must be over before what, by vector clocks over the host and every
// stream. It passes everything on, but for the waits it is told to leave out and the calls that are to fail.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "target/device.h"

namespace espalier::test {

class RecordedDevice : public target::Device {
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
  void forget() { work_.clear(), host_waits_.clear(), waits_ = 0; }
  /// Of each wait of the host since then: was the last launch over when it ended?
  const std::vector<bool>& host_waits() const { return host_waits_; }
  /// The next upload, download or wait of the host fails once; an error that lasts fails every later one, too.
  enum class Failing { upload, download, host_wait };
  void fail(Failing what, bool lost) { fails_ = what, lost_ = lost; }
  /// The wait of that number since forget() is left out (-1: none).
  void leave_out(int wait) { left_out_ = wait; }
  int waits() const { return waits_; }
  /// Of Work.
  int line_of(target::Stream s) const {
    const auto it = lines_.find(static_cast<int>(s));
    return it == lines_.end() ? static_cast<int>(s) : it->second;
  }
  /// Is `a` over before `b` begins, whatever the streams do?
  static bool before(const Work& a, const Work& b) {
    const auto it = b.after.find(a.line);
    const int64_t own = a.line == b.line ? 1 : 0;
    return it != b.after.end() && it->second - own >= a.after.at(a.line);
  }

  target::DeviceInfo info() const override { return device_->info(); }
  int64_t free_bytes() const override { return device_->free_bytes(); }
  int64_t taken_bytes() const override { return device_->taken_bytes(); }
  std::vector<target::DeviceLibrary> libraries() override { return device_->libraries(); }
  target::LibraryAnswer ask(const target::CallRecord::Work& work) override { return device_->ask(work); }
  std::string described_by(std::string_view library) override { return device_->described_by(library); }
  Address allocate(int64_t bytes) override { return device_->allocate(bytes); }
  void release(Address a) noexcept override { device_->release(a); }
  void* allocate_pinned(int64_t bytes) override { return device_->allocate_pinned(bytes); }
  void release_pinned(void* p) noexcept override { device_->release_pinned(p); }
  target::Stream make_stream() override { return device_->make_stream(); }
  /// One line of work, however often it is adopted.
  void* foreign(target::Stream stream) const override { return device_->foreign(stream); }
  target::Stream adopt_stream(void* foreign) override {
    const target::Stream s = device_->adopt_stream(foreign);
    lines_[static_cast<int>(s)] = adopted_.try_emplace(foreign, static_cast<int>(s)).first->second;
    return s;
  }
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
    join(clocks_[line_of(s)], events_[static_cast<int>(e)]);
    device_->wait(s, e);
  }
  void sync(target::Stream s) override {
    host_waits_for(enqueue(s));
    device_->sync(s);
  }
  void sync(target::Event e) override {
    host_waits_for(events_[static_cast<int>(e)]);
    device_->sync(e);
  }
  void upload(Address to, const void* from, int64_t bytes, target::Stream s) override {
    maybe_fail(Failing::upload, "cuMemcpyHtoDAsync");
    note(Kind::upload, s);
    device_->upload(to, from, bytes, s);
  }
  void download(void* to, Address from, int64_t bytes, target::Stream s) override {
    maybe_fail(Failing::download, "cuMemcpyDtoHAsync");
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
    Clock& clock = clocks_[line_of(s)];
    join(clock, clocks_[host]);
    ++clock[line_of(s)];
    return clock;
  }
  void note(Kind kind, target::Stream s) {
    if (static_cast<int>(s) != captured_) work_.push_back({kind, line_of(s), enqueue(s)});
  }

  void host_waits_for(const Clock& clock) {
    maybe_fail(Failing::host_wait, "cuEventSynchronize");
    join(clocks_[host], clock);
    const auto last =
        std::find_if(work_.rbegin(), work_.rend(), [](const Work& w) { return w.kind == Kind::launch; });
    host_waits_.push_back(last == work_.rend() ||
                          before(*last, {.kind = Kind::launch, .line = host, .after = clocks_[host]}));
  }
  void maybe_fail(Failing what, const std::string& call) {
    if (fails_ != what) return;
    if (!lost_) fails_.reset();
    throw target::DeviceError({"device cuda:0, " + call, "made to fail", "(719)", "a call that works"},
                              lost_);
  }

  std::shared_ptr<target::Device> device_;
  std::map<int, Clock> clocks_, events_;
  std::map<void*, int> adopted_;
  std::map<int, int> lines_;  ///< of streams that were adopted
  std::vector<Work> work_;
  std::vector<bool> host_waits_;
  std::optional<Failing> fails_;
  bool lost_ = false;
  int waits_ = 0, left_out_ = -1, captured_ = host;
};

/// What went into the streams in some runs of one launch each: why their order is wrong, or "".
inline std::string order_of(const std::vector<RecordedDevice::Work>& work, size_t slots) {
  using enum RecordedDevice::Kind;
  std::vector<RecordedDevice::Work> up, run, down;
  for (const auto& w : work) (w.kind == upload ? up : w.kind == launch ? run : down).push_back(w);
  if (up.size() != run.size() || up.size() != down.size()) return "a copy or a launch is missing";
  const auto before = RecordedDevice::before;
  for (size_t k = 0; k < run.size(); ++k) {
    if (!before(up[k], run[k])) return "a launch does not wait for its upload";
    if (!before(run[k], down[k])) return "a download does not wait for its launch";
    if (k + 1 < run.size() && before(run[k], up[k + 1]))
      return "an upload waits for the launch of the run before";
    if (k + 1 < run.size() && before(down[k], run[k + 1]))
      return "a launch waits for the download of the run before";
    if (k + slots >= run.size()) continue;
    if (!before(run[k], up[k + slots])) return "an upload overwrites what a launch still reads";
    if (!before(down[k], run[k + slots])) return "a launch overwrites what is still copied out";
  }
  return "";
}

}  // namespace espalier::test
