#include "run/tuner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "ir/array.h"
#include "run/profiler.h"

namespace espalier::run {

using target::Address;
using target::CallRecord;
using target::Choice;
using target::Choices;
using target::ConvCall;
using target::Device;
using target::GemmCall;

namespace {

/// Elements of a result that are compared, from its beginning on.
constexpr int64_t most_compared = int64_t{1} << 20;

/// Bytes from the first element of a batch of matrices to the last; `rows` are contiguous.
int64_t matrix_bytes(const target::GemmMatrix& m, int64_t rows, int64_t columns, int64_t batch) {
  if (m.transposed) std::swap(rows, columns);
  return ((batch - 1) * m.stride + (columns - 1) * m.ld + rows) * ir::dtype_size(m.dtype);
}

/// An operand of a record: its bytes, and what lies there.
struct Part {
  int64_t bytes;
  ir::Dtype dtype;
  bool result = false;
};

std::vector<Part> parts_of(const GemmCall& c) {
  std::vector<Part> out{{matrix_bytes(c.a, c.m, c.k, c.batch), c.a.dtype},
                        {matrix_bytes(c.b, c.k, c.n, c.batch), c.b.dtype}};
  const Part d{matrix_bytes(c.d, c.m, c.n, c.batch), c.d.dtype, false};
  const auto result = [&](int64_t bytes) { out.push_back({bytes, c.d.dtype, true}); };
  if (c.beta != 0) out.push_back(d);
  if (has_bias(c.epilogue)) out.push_back({c.m * ir::dtype_size(c.d.dtype), c.d.dtype});
  const Part mask{mask_bytes(c), ir::Dtype::u8};  // of what rounds to either side of 0 ways may differ
  if (takes_mask(c.epilogue)) out.push_back(mask);
  result(d.bytes);
  if (gives_mask(c.epilogue)) out.push_back(mask);
  if (keeps_gelu_operand(c.epilogue)) result(d.bytes);
  if (sums_operand(c.epilogue))
    result((c.epilogue == target::GemmEpilogue::sum_a ? c.m : c.n) * ir::dtype_size(c.d.dtype));
  return out;
}

std::vector<Part> parts_of(const ConvCall& c) {
  ConvCall bare = c;
  bare.workspace = 0;
  std::vector<Part> out;
  for (const int64_t bytes : conv_operand_bytes(bare)) out.push_back({bytes, c.compute});
  const target::ConvTensor* const tensors[] = {&c.x, &c.w, &c.y};
  for (size_t i = 0; i < 3; ++i) {
    out[i].dtype = tensors[i]->dtype;
    out[i].result = tensors[i] == &conv_result(c);
  }
  size_t at = target::conv_first_step_operand;
  for (int i = 0; i < c.step_count; ++i) {
    const target::ConvStep step = c.steps[static_cast<size_t>(i)];
    if (!takes_operand(step)) continue;
    if (step == target::ConvStep::add_residual) out[at].dtype = conv_result(c).dtype;
    ++at;
  }
  return out;
}

/// Every record that a library does, of the program and its bodies, once, with the workspace that a way may take.
struct Found {
  CallRecord record;
  int times = 0;
};

void gather(const Program& program, std::map<std::string, Found>& all) {
  for (const Step& step : program.steps()) {
    for (const CallRecord& call : step.kernel ? step.kernel->calls() : std::span<const CallRecord>()) {
      CallRecord record = call;
      if (auto* gemm = std::get_if<GemmCall>(&record.work)) gemm->workspace = target::choice_workspace;
      else if (auto* conv = std::get_if<ConvCall>(&record.work)) conv->workspace = target::choice_workspace;
      else continue;
      Found& f = all[target::choice_key(record.work)];
      f.record = std::move(record);
      ++f.times;
    }
    for (const auto& body : step.bodies) gather(*body, all);
  }
}

/// Numbers between -1 and 1, of integers -7 to 7, the same every time.
ir::Array numbers(ir::Dtype dtype, int64_t elements) {
  ir::Array out(dtype, {elements});
  uint32_t state = 12345;
  for (int64_t i = 0; i < elements; ++i) {
    state = state * 1664525u + 1013904223u;
    const int32_t seven = static_cast<int32_t>((state >> 16) % 15) - 7;
    out.set(i, ir::is_float(dtype) ? seven / 8.0 : static_cast<double>(seven));
  }
  return out;
}

/// How far two ways may be from each other, of the size of the numbers.
double tolerance_of(const CallRecord& record) {
  const auto* gemm = std::get_if<GemmCall>(&record.work);
  const auto* conv = std::get_if<ConvCall>(&record.work);
  const bool tf32 = gemm ? gemm->tf32 : conv->tf32;
  switch (gemm ? gemm->d.dtype : conv_result(*conv).dtype) {
    case ir::Dtype::f64: return 1e-10;
    case ir::Dtype::f32: return tf32 || (conv && conv->x.dtype != ir::Dtype::f32) ? 2e-2 : 1e-3;
    case ir::Dtype::f16: return 2e-2;
    case ir::Dtype::bf16: return 5e-2;
    default: return 0;
  }
}

bool agree(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  double sum = 0;
  for (const double v : a) sum += v * v;
  const double size = std::sqrt(sum / static_cast<double>(std::max<size_t>(a.size(), 1)));
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i] && !(std::abs(a[i] - b[i]) <= tolerance * (std::abs(a[i]) + size))) return false;
  return true;
}

/// The elements of each result of a record, in the order of its operands.
using Results = std::vector<std::vector<double>>;

bool agree(const Results& a, const Results& b, double tolerance) {
  return std::ranges::equal(a, b, [&](const auto& x, const auto& y) { return agree(x, y, tolerance); });
}

/// One record over memory of its own.
class Bench {
 public:
  Bench(Device& device, const CallRecord& record)
      : device_(device), record_(record), stream_(owned_stream(device)) {
    parts_ = std::holds_alternative<GemmCall>(record.work) ? parts_of(std::get<GemmCall>(record.work))
                                                           : parts_of(std::get<ConvCall>(record.work));
    for (const Part& p : parts_) {
      memory_.push_back(device_memory(device, p.bytes));
      operands_.push_back(memory_.back().get());
      if (!p.result) fill(p, operands_.back());
    }
    memory_.push_back(device_memory(device, target::choice_workspace));
    operands_.push_back(memory_.back().get());
    record_.operands.assign(operands_.size(), {});
  }

  /// What the record gives by the device's present choice. DeviceError where it does not.
  Results values() {
    ready_ = device_.load({}, std::span(&record_, 1));
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (!parts_[i].result) continue;
      const std::vector<char> poison(static_cast<size_t>(parts_[i].bytes), static_cast<char>(0xFF));
      upload_and_wait(device_, operands_[i], poison.data(), parts_[i].bytes);
    }
    launch();
    device_.sync(stream_.get());
    Results out;
    for (size_t i = 0; i < parts_.size(); ++i)
      if (parts_[i].result) out.push_back(elements_of(parts_[i], operands_[i]));
    return out;
  }

  /// Microseconds, the median of `runs`, one behind the other; after values().
  double time(int runs) {
    std::vector<OwnedEvent> events;
    for (int r = 0; r <= runs; ++r) events.push_back(owned_event(device_, true));
    device_.record(events[0].get(), stream_.get());
    for (int r = 1; r <= runs; ++r) {
      launch();
      device_.record(events[static_cast<size_t>(r)].get(), stream_.get());
    }
    device_.sync(stream_.get());
    std::vector<double> us;
    for (int r = 1; r <= runs; ++r)
      us.push_back(1e3 * device_.elapsed_ms(events[static_cast<size_t>(r) - 1].get(),
                                            events[static_cast<size_t>(r)].get()));
    return median(us);
  }
  void wait() { device_.sync(stream_.get()); }

 private:
  void launch() { device_.launch(*ready_, 0, operands_, stream_.get()); }

  std::vector<double> elements_of(const Part& p, Address at) const {
    ir::Array got(p.dtype, {std::min(p.bytes / ir::dtype_size(p.dtype), most_compared)});
    download_and_wait(device_, got.write(), at, got.bytes());
    std::vector<double> out;
    for (int64_t i = 0; i < got.size(); ++i) out.push_back(got.at(i));
    return out;
  }

  void fill(const Part& p, Address at) {
    constexpr int64_t most = int64_t{1} << 18;
    const int64_t size = ir::dtype_size(p.dtype), all = p.bytes / size;
    const ir::Array some = numbers(p.dtype, std::min(all, most));
    for (int64_t done = 0; done < all; done += most)
      upload_and_wait(device_, at + static_cast<Address>(done * size), some.data(),
                      std::min(most, all - done) * size);
  }

  Device& device_;
  CallRecord record_;
  OwnedStream stream_;
  std::vector<Part> parts_;
  std::vector<DeviceMemory> memory_;
  std::vector<Address> operands_;
  std::unique_ptr<target::Executable> ready_;
};

/// Most ways must be right: those that agree with fewer others than some do are dropped, of equals the library's first stays.
void drop_wrong(std::vector<TunedWay>& ways, const std::vector<Results>& values, double tolerance) {
  std::vector<int> friends(ways.size(), -1);
  for (size_t i = 0; i < ways.size(); ++i)
    for (size_t j = 0; j < ways.size() && ways[i].dropped.empty(); ++j)
      friends[i] += ways[j].dropped.empty() && agree(values[i], values[j], tolerance);
  const auto best = static_cast<size_t>(std::ranges::max_element(friends) - friends.begin());
  for (size_t i = 0; i < ways.size(); ++i)
    if (ways[i].dropped.empty() && !agree(values[best], values[i], tolerance))
      ways[i].dropped = "its values are not those of the others";
}

/// The device's own choices come back with the end of this.
class Trial {
 public:
  Trial(Device& device, std::string key) : device_(device), before_(device.used()), key_(std::move(key)) {}
  ~Trial() { device_.use(before_); }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
  void take(const std::string& name) {
    Choices one;
    one.records[key_] = {.name = name};
    device_.use(target::ways_of(std::move(one)));
  }

 private:
  Device& device_;
  std::shared_ptr<const target::Ways> before_;
  std::string key_;
};

/// `work`, whose failure drops the way; what lasts is thrown.
template <class Work>
void attempt(TunedWay& way, Bench& bench, const Work& work) {
  try {
    work();
  } catch (const target::DeviceError& e) {
    if (e.lost()) throw;
    way.dropped = e.what();
    bench.wait();
  }
}

TunedRecord tune_record(Device& device, const std::string& key, const Found& found,
                        const TuneOptions& options) {
  TunedRecord out{.record = key,
                  .library = std::holds_alternative<GemmCall>(found.record.work) ? "cublaslt" : "cudnn",
                  .times = found.times,
                  .ways = {}};
  Trial trial(device, key);
  device.use(nullptr);
  for (std::string& name : device.choices(found.record.work, options.top))
    out.ways.push_back({.name = std::move(name), .us = 0, .dropped = {}});
  Bench bench(device, found.record);
  std::vector<Results> values(out.ways.size());
  for (size_t i = 0; i < out.ways.size(); ++i)
    attempt(out.ways[i], bench, [&] {
      trial.take(out.ways[i].name);
      values[i] = bench.values();
      out.ways[i].us = bench.time(options.runs);
    });
  drop_wrong(out.ways, values, tolerance_of(found.record));
  for (size_t i = 0; i < out.ways.size(); ++i)
    if (out.ways[i].dropped.empty() &&
        (out.chosen < 0 || out.ways[i].us < out.ways[static_cast<size_t>(out.chosen)].us))
      out.chosen = static_cast<int>(i);
  return out;
}

}  // namespace

TuneReport tune(const Program& program, Device& device, const TuneOptions& options) {
  ESPALIER_CHECK(options.top >= 1 && options.runs >= 1, "tuning takes a way and a run at least");
  TuneReport out;
  out.choices.device = device.info().name.value_or("unknown");
  std::map<std::string, Found> all;
  gather(program, all);
  for (const auto& [key, found] : all) {
    out.records.push_back(tune_record(device, key, found, options));
    const TunedRecord& r = out.records.back();
    if (r.chosen < 0) continue;
    const TunedWay& way = r.ways[static_cast<size_t>(r.chosen)];
    out.choices.records[key] = {.name = way.name, .us = way.us};
    out.chosen_us += way.us * r.times;
    out.first_us += (r.ways[0].us > 0 ? r.ways[0].us : way.us) * r.times;
    for (const target::DeviceLibrary& l : device.libraries())
      if (l.name == r.library) out.choices.libraries[l.name] = l.version;
  }
  return out;
}

std::string text(const TuneReport& report) {
  std::string out;
  for (const TunedRecord& r : report.records) {
    out += fmt::format("{} ({}, {} in the program)\n", r.record, r.library, r.times);
    for (size_t i = 0; i < r.ways.size(); ++i) {
      const TunedWay& w = r.ways[i];
      const char mark = static_cast<int>(i) == r.chosen ? '*' : ' ';
      out += w.dropped.empty() ? fmt::format("  {} {:>10.2f} us  {}\n", mark, w.us, w.name)
                               : fmt::format("    dropped        {}: {}\n", w.name, w.dropped);
    }
    if (r.chosen < 0) out += "    no way serves\n";
  }
  return out + fmt::format(
                   "{} records; a run's products and convolutions: {:.2f} us by the libraries' first ways, "
                   "{:.2f} us by those chosen\n",
                   report.records.size(), report.first_us, report.chosen_us);
}

std::string use_choices(Device& device, Choices choices) {
  const std::string name = device.info().name.value_or("unknown");
  if (choices.device != name)
    return fmt::format("the plan was made for another device, {}; this is {}", choices.device, name);
  for (const target::DeviceLibrary& l : device.libraries()) {
    const auto it = choices.libraries.find(l.name);
    if (it != choices.libraries.end() && it->second != l.version)
      return fmt::format("the plan was made with {} {}; here is {}", l.name, it->second,
                         l.version.empty() ? "none: " + l.missing : l.version);
  }
  device.use(target::ways_of(std::move(choices)));
  return "";
}

}  // namespace espalier::run
