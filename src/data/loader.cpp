#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/text.h"
#include "base/threads.h"

namespace espalier::data {

using ir::Array;

namespace {

void shuffle(std::vector<int64_t>& order, uint64_t seed, uint64_t epoch) {
  std::iota(order.begin(), order.end(), int64_t{0});
  Rng rng(seed, epoch, 0, Rng::Purpose::order);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
}

/// The current exception with the sample named in front.
std::exception_ptr name_sample(int64_t sample, int64_t epoch, int64_t batch) {
  const std::string where = fmt::format("dataset, sample {} (epoch {}, batch {})", sample, epoch, batch);
  try {
    throw;
  } catch (const UserError& e) {
    ErrorFields fields = e.fields();
    fields.where = fields.where.empty() ? where : where + ", " + fields.where;
    return std::make_exception_ptr(UserError(std::move(fields)));
  } catch (const InternalError& e) {
    return std::make_exception_ptr(InternalError(where + ": " + e.what()));
  } catch (const std::exception& e) {
    return std::make_exception_ptr(UserError({where, e.what(), "", ""}));
  } catch (...) {
    return std::make_exception_ptr(InternalError(where + ": an exception of unknown type"));
  }
}

/// The memory of one batch, with the arrays that look at it.
struct Slot {
  std::vector<Array> full, partial;        // by field: of batch_size samples, and of the epoch's last batch
  std::vector<std::vector<Array>> places;  // by sample and field
  std::vector<int64_t> samples;
  int64_t number = -1, epoch = 0, index = 0;  // which batch it holds or is getting
  int64_t chunks_left = 0;
  std::exception_ptr error;
  int64_t error_at = 0;  // position in the batch; the first counts
};

Slot make_slot(const std::vector<Field>& fields, int64_t batch_size, int64_t partial_size) {
  Slot slot;
  slot.samples.reserve(static_cast<size_t>(batch_size));
  slot.places.resize(static_cast<size_t>(batch_size));
  for (const Field& field : fields) {
    const std::vector<int64_t> dims = ir::static_dims(field.type.dims);
    const auto with_rows = [&](int64_t n) {
      std::vector<int64_t> out{n};
      out.insert(out.end(), dims.begin(), dims.end());
      return out;
    };
    slot.full.emplace_back(field.type.dtype, with_rows(batch_size));
    const auto keep = std::make_shared<const Array>(slot.full.back());
    const auto* data = static_cast<const std::byte*>(keep->data());
    slot.partial.push_back(Array::borrow(field.type.dtype, with_rows(partial_size), data, keep));
    const int64_t bytes = batch_size > 0 ? keep->bytes() / batch_size : 0;
    for (int64_t i = 0; i < batch_size; ++i)
      slot.places[static_cast<size_t>(i)].push_back(
          Array::borrow(field.type.dtype, dims, data + i * bytes, keep));
  }
  return slot;
}

}  // namespace

std::vector<int64_t> shuffled(int64_t n, uint64_t seed, uint64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  shuffle(order, seed, epoch);
  return order;
}

std::string LoaderState::text() const {
  return fmt::format("epoch={} batch={} seed={} batch_size={} samples={} shuffle={:d} drop_last={:d}", epoch,
                     batch, seed, batch_size, samples, shuffle, drop_last);
}

LoaderState LoaderState::of_text(std::string_view text) {
  LoaderState s;
  size_t at = 0;
  const auto number = [&](std::string_view key) {
    const auto fail = [&] {
      throw UserError({"loader state", "cannot be read", quote(text),
                       "epoch=E batch=B seed=S batch_size=N samples=M shuffle=0|1 drop_last=0|1 (an older "
                       "version's checkpoint lacks some: begin a new one)"});
    };
    if (text.substr(at, key.size()) != key) fail();
    at += key.size();
    uint64_t value = 0;
    const size_t start = at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at)
      if (__builtin_mul_overflow(value, uint64_t{10}, &value) ||
          __builtin_add_overflow(value, static_cast<uint64_t>(text[at] - '0'), &value))
        fail();
    if (at == start || (at == text.size()) != (key == " drop_last=")) fail();
    return value;
  };
  const auto count = [&](std::string_view key) {
    return static_cast<int64_t>(std::min<uint64_t>(number(key), std::numeric_limits<int64_t>::max()));
  };
  s.epoch = count("epoch=");
  s.batch = count(" batch=");
  s.seed = number(" seed=");
  s.batch_size = count(" batch_size=");
  s.samples = count(" samples=");
  s.shuffle = number(" shuffle=") != 0;
  s.drop_last = number(" drop_last=") != 0;
  return s;
}

/// Batches are numbered through all epochs: number = epoch * per_epoch + index. Batch n lies in slot n % slots.
struct DataLoader::Ring {
  std::shared_ptr<const Dataset> dataset;
  LoaderOptions options;
  int64_t samples, per_epoch, chunk;

  std::mutex mutex;  // guards everything below, except the elements of slots being filled
  std::condition_variable work, done;
  std::vector<Slot> slots;
  std::vector<int64_t> order;  // of order_epoch
  int64_t order_epoch = -1;
  int64_t next_out = 0;             // the batch that next() gives next
  int64_t in_use = 0;               // batches before this one are free
  int64_t issue = 0, issue_at = 0;  // the batch and the position in it that a worker takes next
  bool stop = false;
  std::vector<std::thread> workers;

  Ring(std::shared_ptr<const Dataset> d, LoaderOptions o)
      : dataset(std::move(d)), options(o), samples(dataset->size()) {
    const auto check = [](const char* name, int64_t value, int64_t low, int64_t high) {
      if (value < low || value > high)
        throw UserError({fmt::format("DataLoader, {}", name), "is out of range", std::to_string(value),
                         fmt::format("{} to {}", low, high)});
    };
    check("batch_size", options.batch_size, 1, int64_t{1} << 31);
    check("workers", options.workers, 0, 1024);
    check("prefetch", options.prefetch, 1, 1024);
    per_epoch = options.drop_last ? samples / options.batch_size
                                  : (samples + options.batch_size - 1) / options.batch_size;
    if (per_epoch < 1)
      throw UserError({"DataLoader", "the dataset makes no batch", fmt::format("{} samples", samples),
                       options.drop_last ? fmt::format("{} or more (drop_last is set)", options.batch_size)
                                         : "1 or more"});
    if (dataset->fields().empty())
      throw UserError({"DataLoader", "the dataset has no fields", "", "one or more"});
    chunk = std::max<int64_t>(1, options.batch_size / std::max(1, 4 * options.workers));
    const int64_t rows = std::min(options.batch_size, samples);
    for (int i = 0; i < options.prefetch + 1; ++i)
      slots.push_back(make_slot(dataset->fields(), rows, size_of(per_epoch - 1)));
    order.resize(static_cast<size_t>(samples));
  }
  ~Ring() { join(); }

  int64_t size_of(int64_t index) const {
    return std::min(options.batch_size, samples - index * options.batch_size);
  }
  Slot& slot_of(int64_t number) { return slots[static_cast<size_t>(number) % slots.size()]; }

  void start() {
    stop = false;
    try {
      for (int i = 0; i < options.workers; ++i)
        workers.emplace_back([this] {
          leave_signals_to_others();
          run_worker();
        });
    } catch (const std::system_error& e) {
      join();
      throw UserError({"DataLoader, workers", "no thread can be started", e.what(), ""});
    }
  }
  void join() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    work.notify_all();
    for (std::thread& t : workers) t.join();
    workers.clear();
  }

  /// Give slot_of(number) its samples. Called with the mutex held.
  void prepare(int64_t number) {
    Slot& slot = slot_of(number);
    slot.number = number, slot.epoch = number / per_epoch, slot.index = number % per_epoch;
    slot.error = nullptr;
    if (order_epoch != slot.epoch) {
      if (options.shuffle) shuffle(order, options.seed, static_cast<uint64_t>(slot.epoch));
      else if (order_epoch < 0) std::iota(order.begin(), order.end(), int64_t{0});
      order_epoch = slot.epoch;
    }
    const auto first = order.begin() + slot.index * options.batch_size;
    slot.samples.assign(first, first + size_of(slot.index));
    slot.chunks_left = (size_of(slot.index) + chunk - 1) / chunk;
  }

  struct Failure {
    std::exception_ptr error;
    int64_t at;
  };
  /// Make the samples at [begin, end) of a prepared slot. Called without the mutex.
  std::optional<Failure> fill(Slot& slot, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sample = slot.samples[static_cast<size_t>(i)];
      try {
        Rng rng(options.seed, static_cast<uint64_t>(slot.epoch), static_cast<uint64_t>(sample));
        dataset->fill(sample, rng, slot.places[static_cast<size_t>(i)]);
      } catch (...) {
        return Failure{name_sample(sample, slot.epoch, slot.index), i};
      }
    }
    return std::nullopt;
  }
  /// Book a chunk that has ended. Called with the mutex held.
  void finish(Slot& slot, std::optional<Failure> failure) {
    if (failure && (!slot.error || failure->at < slot.error_at)) {
      slot.error = std::move(failure->error);
      slot.error_at = failure->at;
    }
    if (--slot.chunks_left == 0) done.notify_all();
  }

  void run_worker() {
    std::unique_lock lock(mutex);
    for (;;) {
      work.wait(lock, [&] { return stop || issue < in_use + static_cast<int64_t>(slots.size()); });
      if (stop) return;
      if (issue_at == 0) prepare(issue);
      Slot& slot = slot_of(issue);
      const int64_t begin = issue_at, end = std::min(begin + chunk, size_of(slot.index));
      issue_at = end;
      if (end == size_of(slot.index)) ++issue, issue_at = 0;
      lock.unlock();
      std::optional<Failure> failure = fill(slot, begin, end);
      lock.lock();
      finish(slot, std::move(failure));
    }
  }

  Batch next() {
    std::unique_lock lock(mutex);
    in_use = next_out;
    Slot& slot = slot_of(next_out);
    if (options.workers > 0) {
      work.notify_all();
      done.wait(lock, [&] { return slot.number == next_out && slot.chunks_left == 0; });
    } else if (slot.number != next_out) {
      prepare(next_out);
      slot.chunks_left = 1;
      finish(slot, fill(slot, 0, size_of(slot.index)));
    }
    if (slot.error) std::rethrow_exception(slot.error);
    ++next_out;
    const bool whole = size_of(slot.index) == slot.full[0].dims()[0];
    return {slot.epoch, slot.index, size_of(slot.index), whole ? slot.full : slot.partial, slot.samples};
  }
};

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : ring_(std::make_unique<Ring>(std::move(dataset), options)) {
  ring_->start();
}

DataLoader::~DataLoader() = default;

Batch DataLoader::next() { return ring_->next(); }
int64_t DataLoader::batches_per_epoch() const { return ring_->per_epoch; }
const std::vector<Field>& DataLoader::fields() const { return ring_->dataset->fields(); }
const LoaderOptions& DataLoader::options() const { return ring_->options; }

LoaderState DataLoader::state() const {
  return {ring_->next_out / ring_->per_epoch,
          ring_->next_out % ring_->per_epoch,
          ring_->options.seed,
          ring_->options.batch_size,
          ring_->samples,
          ring_->options.shuffle,
          ring_->options.drop_last};
}

void DataLoader::restore(const LoaderState& state) {
  const LoaderState ours = this->state();
  LoaderState there = ours;
  there.epoch = state.epoch, there.batch = state.batch;
  if (state != there) {
    std::vector<std::string> differ;
    const auto compare = [&](const char* name, auto then, auto now) {
      if (then != now) differ.push_back(fmt::format("{} {} (now {})", name, then, now));
    };
    compare("seed", state.seed, ours.seed);
    compare("batch_size", state.batch_size, ours.batch_size);
    compare("samples", state.samples, ours.samples);
    compare("shuffle", state.shuffle, ours.shuffle);
    compare("drop_last", state.drop_last, ours.drop_last);
    throw UserError(
        {"loader state", "is of other data or options: " + join(differ, ", "), state.text(), ours.text()});
  }
  const bool inside = state.epoch >= 0 && state.epoch < (int64_t{1} << 40) && state.batch >= 0 &&
                      state.batch < ring_->per_epoch;
  if (!inside)
    throw UserError({"loader state", "place is outside", state.text(),
                     fmt::format("epoch >= 0, batch below {}", ring_->per_epoch)});
  ring_->join();
  Ring& r = *ring_;
  for (Slot& slot : r.slots) slot.number = -1, slot.chunks_left = 0, slot.error = nullptr;
  r.next_out = r.in_use = r.issue = state.epoch * r.per_epoch + state.batch;
  r.issue_at = 0;
  r.start();
}

}  // namespace espalier::data
