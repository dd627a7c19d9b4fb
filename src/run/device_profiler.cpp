#include "run/device_profiler.h"

#include <algorithm>

namespace espalier::run {

namespace {

/// The timer of an executor as long as this lives.
class Timing {
 public:
  Timing(DeviceExecutor& executor, DeviceTimer::What what)
      : executor_(executor), timer_(executor.device_program().device(), what) {
    executor_.set_timer(&timer_);
  }
  ~Timing() { executor_.set_timer(nullptr); }
  Timing(const Timing&) = delete;
  Timing& operator=(const Timing&) = delete;
  std::vector<TimedPiece> take() { return timer_.take(); }

 private:
  DeviceExecutor& executor_;
  DeviceTimer timer_;
};

/// The step of the whole program that record `call` belongs to; those of its bodies lie behind its own.
size_t step_of(const DeviceBody& body, size_t call) {
  const auto after = std::ranges::upper_bound(body.first_call, call);
  return static_cast<size_t>(after - body.first_call.begin()) - 1;
}

std::vector<StepProfile> rows_of(const DeviceProgram& program, const Ceilings& ceilings) {
  std::vector<StepProfile> rows;
  for (size_t call = 0; call < program.calls().size(); ++call) {
    const target::CallRecord& record = program.calls()[call];
    StepProfile row;
    row.step = step_of(program.body(), call);
    const Step& step = program.program().steps()[row.step];
    row.op = name_of(step);
    row.kernel = step.kernel->name();
    const std::string text = target::text(record);
    row.what = text.substr(0, text.rfind(" :"));
    row.bytes = record.cost.bytes;
    row.flops = record.cost.flops;
    const auto* gemm = std::get_if<target::GemmCall>(&record.work);
    const auto* conv = std::get_if<target::ConvCall>(&record.work);
    Ceilings its = ceilings;
    if ((gemm && gemm->tf32) || (conv && conv->tf32)) its.f32_flops = its.tf32_flops;
    row.limit_ns = limit_ns(record.cost, its);
    rows.push_back(std::move(row));
  }
  return rows;
}

constexpr const char* copy_names[lanes] = {"upload", "run", "download"};

Span span_of(const TimedPiece& piece, int scene) {
  return {.row = static_cast<int>(piece.call),
          .name = copy_names[static_cast<size_t>(piece.lane)],
          .scene = scene,
          .lane = static_cast<int>(piece.lane),
          .begin_us = 1e3 * piece.begin_ms,
          .us = 1e3 * (piece.end_ms - piece.begin_ms)};
}

void time_records(DeviceExecutor& e, int runs, const std::function<void(DeviceExecutor&)>& feed, Profile& p) {
  Timing timing(e, DeviceTimer::What::records);
  std::vector<std::vector<double>> calls(p.steps.size(), std::vector<double>(static_cast<size_t>(runs)));
  std::vector<double> copies[lanes];
  for (auto& c : copies) c.resize(static_cast<size_t>(runs));
  for (int r = 0; r < runs; ++r) {
    feed(e);
    e.run();
    p.spans.clear();
    for (const TimedPiece& piece : timing.take()) {
      auto& of =
          piece.call < 0 ? copies[static_cast<size_t>(piece.lane)] : calls[static_cast<size_t>(piece.call)];
      of[static_cast<size_t>(r)] += 1e6 * (piece.end_ms - piece.begin_ms);
      p.spans.push_back(span_of(piece, 0));
    }
  }
  for (size_t c = 0; c < calls.size(); ++c) p.steps[c].median_ns = median(calls[c]);
  p.device->in_ns = median(copies[static_cast<size_t>(Lane::copies_in)]);
  p.device->out_ns = median(copies[static_cast<size_t>(Lane::copies_out)]);
}

void time_runs(DeviceExecutor& e, int runs, const std::function<void(DeviceExecutor&)>& feed, Profile& p) {
  Timing timing(e, DeviceTimer::What::runs);
  Ticket last = 0;
  for (int r = 0; r <= std::max(runs, e.options().slots); ++r) {
    feed(e);
    last = e.submit();
  }
  e.wait(last);
  const std::vector<TimedPiece> pieces = timing.take();
  const CopyOverlap copies = copies_beside_computing(pieces);
  p.device->copied_ns = 1e6 * copies.copied_ms;
  p.device->hidden_ns = 1e6 * copies.hidden_ms;
  std::vector<double> between;
  const TimedPiece* before = nullptr;
  for (const TimedPiece& piece : pieces) {
    p.spans.push_back(span_of(piece, 1));
    if (piece.lane != Lane::computing) continue;
    if (before) between.push_back(1e6 * (piece.end_ms - before->end_ms));
    before = &piece;
  }
  p.device->run_ns = median(between);
}

}  // namespace

Profile profile(DeviceExecutor& e, int runs, const std::function<void(DeviceExecutor&)>& feed) {
  Profile p;
  const DeviceProgram& program = e.device_program();
  p.ceilings = device_ceilings(program.device().info());
  p.steps = rows_of(program, p.ceilings);
  p.scenes = {"one run, record by record", "runs behind each other"};
  p.lane_names = {"copies in", "computing", "copies out"};
  p.device.emplace();
  p.device->in_bytes = e.input_bytes();
  p.device->out_bytes = e.output_bytes();
  // Twice in each slot: kernels are loaded, then graphs captured.
  for (int r = 0; r < 2 * e.options().slots; ++r) {
    feed(e);
    e.run();
  }
  time_records(e, std::max(runs, 1), feed, p);
  time_runs(e, std::max(runs, 1), feed, p);
  sum_up(p);
  return p;
}

}  // namespace espalier::run
