#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "base/error.h"
#include "support/errors.h"

namespace espalier::data {
namespace {

using ir::Array;
using ir::Dtype;

/// Sample i is i and a random number; sample `bad` throws.
class Numbers : public Dataset {
 public:
  explicit Numbers(int64_t size, int64_t bad = -1) : size_(size), bad_(bad) {}
  int64_t size() const override { return size_; }
  const std::vector<Field>& fields() const override { return fields_; }
  void fill(int64_t index, Rng& rng, std::span<Array> out) const override {
    calls.fetch_add(1);
    if (index == bad_) throw UserError({"file x.png", "is broken", "junk", ""});
    if (index % 7 == 3) std::this_thread::yield();
    *out[0].write<int64_t>() = index;
    out[1].write<float>()[0] = rng.uniform();
    out[1].write<float>()[1] = rng.uniform();
  }
  mutable std::atomic<int> calls{0};

 private:
  int64_t size_, bad_;
  std::vector<Field> fields_{{"number", {Dtype::i64, {}}}, {"random", {Dtype::f32, {2}}}};
};

using Record = std::vector<std::vector<double>>;

/// Everything `count` batches hold.
Record read(DataLoader& loader, int count) {
  Record out;
  for (int i = 0; i < count; ++i) {
    const Batch b = loader.next();
    std::vector<double> row{static_cast<double>(b.epoch), static_cast<double>(b.index),
                            static_cast<double>(b.size)};
    EXPECT_EQ(b.arrays[0].dims(), (std::vector<int64_t>{b.size}));
    EXPECT_EQ(b.arrays[1].dims(), (std::vector<int64_t>{b.size, 2}));
    for (int64_t k = 0; k < b.size; ++k) {
      EXPECT_EQ(b.arrays[0].at(k), static_cast<double>(b.samples[static_cast<size_t>(k)]));
      row.insert(row.end(), {b.arrays[0].at(k), b.arrays[1].at(2 * k), b.arrays[1].at(2 * k + 1)});
    }
    out.push_back(row);
  }
  return out;
}

LoaderOptions options(int workers, int prefetch = 2) {
  return {.batch_size = 8,
          .shuffle = true,
          .drop_last = false,
          .workers = workers,
          .prefetch = prefetch,
          .seed = 5};
}

TEST(Loader, AnEpochHoldsEverySampleOnce) {
  DataLoader loader(std::make_shared<Numbers>(30), options(0));
  EXPECT_EQ(loader.batches_per_epoch(), 4);
  std::set<int64_t> seen;
  std::vector<int64_t> order;
  for (int i = 0; i < 4; ++i) {
    const Batch b = loader.next();
    EXPECT_EQ(b.size, i < 3 ? 8 : 6);
    for (const int64_t s : b.samples) seen.insert(s), order.push_back(s);
  }
  EXPECT_EQ(seen.size(), 30u);
  EXPECT_EQ(order, shuffled(30, 5, 0));
  EXPECT_NE(order, shuffled(30, 5, 1));
  EXPECT_EQ(loader.next().epoch, 1);
}

TEST(Loader, KeepsTheOrderWithoutShuffleAndDropsTheLast) {
  LoaderOptions o = options(0);
  o.shuffle = false, o.drop_last = true;
  DataLoader loader(std::make_shared<Numbers>(30), o);
  EXPECT_EQ(loader.batches_per_epoch(), 3);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(loader.next().samples[0], i % 3 * 8);
}

TEST(LoaderThreads, TheSameBatchesForAnyNumberOfWorkers) {
  DataLoader one(std::make_shared<Numbers>(100), options(0));
  const Record expected = read(one, 40);
  for (const int workers : {1, 2, 5})
    for (const int prefetch : {1, 3, 20}) {
      DataLoader loader(std::make_shared<Numbers>(100), options(workers, prefetch));
      EXPECT_EQ(read(loader, 40), expected) << workers << " workers";
    }
}

TEST(LoaderThreads, BuffersAreARing) {
  DataLoader loader(std::make_shared<Numbers>(64), options(2, 2));
  std::vector<const void*> places;
  for (int i = 0; i < 30; ++i) places.push_back(loader.next().arrays[1].data());
  for (size_t i = 3; i < places.size(); ++i) EXPECT_EQ(places[i], places[i - 3]);
  EXPECT_EQ(std::set<const void*>(places.begin(), places.end()).size(), 3u);
}

TEST(LoaderThreads, ABatchStaysUntilTheNextCall) {
  DataLoader loader(std::make_shared<Numbers>(64), options(3, 1));
  for (int i = 0; i < 20; ++i) {
    const Batch b = loader.next();
    const std::vector<int64_t> before(b.arrays[0].data<int64_t>(), b.arrays[0].data<int64_t>() + b.size);
    std::this_thread::yield();
    EXPECT_TRUE(std::equal(before.begin(), before.end(), b.arrays[0].data<int64_t>()));
  }
}

TEST(LoaderThreads, GoesOnFromASavedPlace) {
  DataLoader whole(std::make_shared<Numbers>(30), options(2));
  const Record all = read(whole, 20);
  for (const int stop : {0, 1, 4, 11}) {
    DataLoader first(std::make_shared<Numbers>(30), options(2));
    read(first, stop);
    const LoaderState saved = LoaderState::of_text(first.state().text());
    EXPECT_EQ(saved, first.state());
    DataLoader second(std::make_shared<Numbers>(30), options(3, 4));
    read(second, 2);
    second.restore(saved);
    EXPECT_EQ(read(second, 20 - stop), Record(all.begin() + stop, all.end()));
  }
}

TEST(LoaderThreads, AnErrorNamesTheSampleWhenItsTurnComes) {
  for (const int workers : {0, 3}) {
    LoaderOptions o = options(workers);
    o.shuffle = false;
    DataLoader loader(std::make_shared<Numbers>(40, 19), o);
    read(loader, 2);
    for (int again = 0; again < 2; ++again)
      EXPECT_EQ(test::error_of([&] { loader.next(); }),
                "dataset, sample 19 (epoch 0, batch 2), file x.png: is broken (got junk)");
    EXPECT_EQ(loader.state().batch, 2);
  }
}

TEST(LoaderThreads, EndsWhileWorkersAreBusy) {
  for (int i = 0; i < 20; ++i) {
    const auto data = std::make_shared<Numbers>(1000);
    DataLoader loader(data, options(4, 8));
    if (i % 2) loader.next();
  }
}

TEST(LoaderThreads, WorkersStayInsideTheRing) {
  const auto data = std::make_shared<Numbers>(1000);
  DataLoader loader(data, options(4, 2));
  read(loader, 5);
  EXPECT_LE(data->calls.load(), 8 * (5 + 2));
}

TEST(Loader, RefusesWhatItCannotDo) {
  const auto some = std::make_shared<Numbers>(5);
  EXPECT_NE(test::error_of([&] { DataLoader(some, {.batch_size = 0}); }).find("DataLoader, batch_size"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] { DataLoader(some, {.workers = -1}); }).find("DataLoader, workers"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] { DataLoader(some, {.prefetch = 0}); }).find("DataLoader, prefetch"),
            std::string::npos);
  EXPECT_NE(
      test::error_of([&] { DataLoader(some, {.batch_size = 6, .drop_last = true}); }).find("makes no batch"),
      std::string::npos);
  EXPECT_NE(test::error_of([&] { DataLoader(std::make_shared<Numbers>(0), {}); }).find("makes no batch"),
            std::string::npos);
  EXPECT_EQ(DataLoader(some, {.batch_size = 6}).next().size, 5);
  DataLoader loader(some, {.batch_size = 2});
  LoaderState s = loader.state();
  s.batch = 3;
  EXPECT_NE(test::error_of([&] { loader.restore(s); }).find("place is outside"), std::string::npos);
  s = loader.state();
  s.samples = 6;
  EXPECT_NE(test::error_of([&] { loader.restore(s); }).find("other data or options"), std::string::npos);
  s = loader.state();
  s.shuffle = true;
  EXPECT_NE(test::error_of([&] { loader.restore(s); }).find("shuffle=1"), std::string::npos);
  s = loader.state();
  s.drop_last = true;
  EXPECT_NE(test::error_of([&] { loader.restore(s); }).find("drop_last=1"), std::string::npos);
  for (const char* bad :
       {"", "epoch=1", "epoch=1 batch=x seed=0 batch_size=1 samples=1 shuffle=0 drop_last=0",
        "epoch=1 batch=1 seed=0 batch_size=1 samples=1 shuffle=0 drop_last=0 ",
        "epoch=1 batch=1 seed=99999999999999999999 batch_size=1 samples=1 shuffle=0 drop_last=0"})
    EXPECT_NE(test::error_of([&] { LoaderState::of_text(bad); }), "no error") << bad;
  EXPECT_NE(test::error_of([&] {
              LoaderState::of_text("epoch=1 batch=1 seed=0 batch_size=1 samples=1");
            }).find("older version"),
            std::string::npos);
}

}  // namespace
}  // namespace espalier::data
