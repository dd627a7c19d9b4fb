#pragma once
// Batches of a dataset: made ahead by worker threads in a ring of buffers that is allocated once, and given in one order
// whatever the number of workers. A loader belongs to one thread; its workers are its own.
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "data/dataset.h"

namespace espalier::data {

struct LoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;  ///< leave out an epoch's last batch where it is not full
  int workers = 2;         ///< 0: batches are made by next() itself
  int prefetch = 2;        ///< batches made ahead of the one in use, 1 or more
  uint64_t seed = 0;       ///< of the order and of every sample's Rng
};

/// Where a loader stands: the batch that next() gives next. Text form: "epoch=1 batch=20 seed=7 batch_size=32
/// samples=600 shuffle=1 drop_last=0".
struct LoaderState {
  int64_t epoch = 0, batch = 0;
  uint64_t seed = 0;
  int64_t batch_size = 0, samples = 0;
  bool shuffle = false, drop_last = false;
  bool operator==(const LoaderState&) const = default;
  ESPALIER_API std::string text() const;
  /// UserError for any other text.
  ESPALIER_API static LoaderState of_text(std::string_view text);
};

/// One batch: an array per field, dims [size, ...], and the samples in it. All of it is the loader's and stays until next(),
/// restore() or the end of the loader; copy the elements to keep them.
struct Batch {
  int64_t epoch = 0, index = 0;       ///< which batch of which epoch
  int64_t size = 0;                   ///< samples in it
  std::span<const ir::Array> arrays;  ///< by field
  std::span<const int64_t> samples;   ///< their indices in the dataset
};

class ESPALIER_API DataLoader {
 public:
  /// UserError where an option is out of range or no batch can be made of the dataset.
  DataLoader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// The next batch; behind an epoch's last one comes the next epoch's first. In epoch e the order is a permutation drawn
  /// from (seed, e), and sample i is made with Rng(seed, e, i). An error of the dataset is thrown when its batch's turn comes,
  /// with the sample, epoch and batch named; calling again throws it again.
  Batch next();
  int64_t batches_per_epoch() const;
  const std::vector<Field>& fields() const;
  const LoaderOptions& options() const;

  LoaderState state() const;
  /// Go to a saved place, from which the same batches follow. UserError where the state is of another dataset size, seed,
  /// batch size, shuffle or drop_last, or outside.
  void restore(const LoaderState& state);

 private:
  struct Ring;
  std::unique_ptr<Ring> ring_;
};

/// The order of an epoch: a permutation of 0..n-1 (Fisher-Yates from Rng(seed, epoch, 0, order)).
ESPALIER_API std::vector<int64_t> shuffled(int64_t n, uint64_t seed, uint64_t epoch);

}  // namespace espalier::data
