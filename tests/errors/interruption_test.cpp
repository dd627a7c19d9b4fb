// Training that is interrupted, killed, or cannot save: what is on disk is whole, and going on gives the same bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>
#include <thread>

#include "base/file.h"
#include "data/png.h"
#include "format/numpy.h"
#include "support/again.h"
#include "support/errors.h"
#include "support/small_training.h"

namespace espalier::train {
namespace {

using test::AtStep;
using test::SmallTraining;
using test::TemporaryFolder;
using testing::HasSubstr;

/// While it lives, no file grows beyond `bytes`: what a full disk is to a writer.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit cut{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &cut);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

/// What the killed process does: train, and at one step send itself a signal.
TEST(Killed, DISABLED_Training) {
  const char* checkpoint = std::getenv("ESPALIER_TEST_CHECKPOINT");
  const char* signal = std::getenv("ESPALIER_TEST_SIGNAL");
  const char* step = std::getenv("ESPALIER_TEST_STEP");
  if (!checkpoint || !signal || !step) GTEST_SKIP() << "started by the tests of this file";
  interrupt_on_signals();
  SmallTraining run({.checkpoint = checkpoint});
  run.trainer().add(std::make_shared<AtStep>(std::atoi(step), [&] { std::raise(std::atoi(signal)); }));
  std::printf("ended as %d\n", static_cast<int>(run.fit()));
}

/// Killed at each of these steps, then trained to the end: the bits of an undisturbed training.
void expect_same_bits_after(int signal, std::span<const int> at_steps, int code) {
  SmallTraining whole;
  whole.fit();
  for (const int step : at_steps) {
    const TemporaryFolder folder;
    const test::Outcome o = test::run_again("Killed.DISABLED_Training",
                                            "ESPALIER_TEST_CHECKPOINT=" + (folder / "checkpoint").string() +
                                                " ESPALIER_TEST_SIGNAL=" + std::to_string(signal) +
                                                " ESPALIER_TEST_STEP=" + std::to_string(step));
    EXPECT_EQ(o.code, code) << o.output;
    SmallTraining rest({.checkpoint = folder / "checkpoint"});
    EXPECT_EQ(rest.fit(), Ending::finished);
    EXPECT_TRUE(rest.bits() == whole.bits()) << "signal " << signal << " after step " << step;
  }
}

TEST(Killed, GoesOnFromTheLastCheckpointToTheSameBits) {
  expect_same_bits_after(SIGKILL, std::vector<int>{2, 13},
                         128 + SIGKILL);  // before and after a first checkpoint
}

TEST(Interrupted, EndsWithACheckpointAndGoesOnToTheSameBits) {
  expect_same_bits_after(SIGINT, std::vector<int>{8}, 0);
  expect_same_bits_after(SIGTERM, std::vector<int>{8}, 0);
}

TEST(Interrupted, HandlersHaveAStackOfTheirOwnWhereverStepsAreComputed) {
  const auto has_stack = [] {
    stack_t s{};
    return sigaltstack(nullptr, &s) == 0 && !(s.ss_flags & SS_DISABLE);
  };
  std::thread([&] {
    bool inside = false;
    SmallTraining run({.steps = 1});
    run.trainer().add(std::make_shared<AtStep>(1, [&] { inside = has_stack(); }));
    run.fit();
    EXPECT_TRUE(inside);
  }).join();
  std::thread([&] {
    struct sigaction before {
    }, after{};
    sigaction(SIGINT, nullptr, &before);
    interrupt_on_signals();
    EXPECT_TRUE(has_stack());
    for (const int signal : {SIGTERM, SIGINT}) {
      sigaction(signal, &before, &after);
      EXPECT_TRUE(after.sa_flags & SA_ONSTACK);
    }
  }).join();
}

TEST(FullDisk, ACheckpointIsWholeOrTheOldOne) {
  const TemporaryFolder folder;
  SmallTraining run({.checkpoint = folder / "checkpoint"});
  run.trainer().add(std::make_shared<AtStep>(7, [] { set_interrupted(true); }));
  EXPECT_EQ(run.fit(), Ending::interrupted);
  set_interrupted(false);
  const std::string before = test::file_text(folder / "checkpoint");
  {
    const FullDisk full(1000);
    EXPECT_THAT(test::error_of([&] { run.fit(); }), HasSubstr((folder / "checkpoint").string()));
  }
  EXPECT_TRUE(test::file_text(folder / "checkpoint") == before);
  EXPECT_EQ(files_in(folder.path()), 1u) << "something half-written was left";
  SmallTraining whole, rest({.checkpoint = folder / "checkpoint"});
  whole.fit();
  rest.fit();
  EXPECT_TRUE(rest.bits() == whole.bits());
}

TEST(FullDisk, EveryWriterNamesItsFileAndLeavesNothing) {
  const TemporaryFolder folder;
  const ir::Array big(ir::Dtype::u8, {64, 64, 3});
  const FullDisk full(10);
  EXPECT_THAT(test::error_of([&] { format::save_npy(folder / "a.npy", big); }), HasSubstr("a.npy"));
  EXPECT_THAT(test::error_of([&] { data::save_png(folder / "a.png", big); }), HasSubstr("a.png"));
  EXPECT_THAT(test::error_of([&] { write_file(folder / "a.txt", std::string(100, 'x')); }),
              HasSubstr("a.txt"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(Checkpoint, DamageIsNamedAndChangesNothing) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "checkpoint";
  SmallTraining first({.checkpoint = path});
  first.fit();
  const std::string good = test::file_text(path);
  const auto resume = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    SmallTraining run({.checkpoint = path});
    const std::string before = run.bits();
    const std::string error = test::error_of([&] { run.fit(); });
    EXPECT_TRUE(run.bits() == before);
    EXPECT_EQ(test::file_text(path), text) << "the file was changed";
    return error;
  };
  for (const size_t keep : {size_t{0}, size_t{7}, size_t{100}, good.size() / 2, good.size() - 1})
    EXPECT_THAT(resume(good.substr(0, keep)), HasSubstr(path.string())) << keep << " bytes";
  EXPECT_THAT(resume("not a checkpoint, but long enough to look at"), HasSubstr(path.string()));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  SmallTraining run({.checkpoint = path});
  EXPECT_THAT(test::error_of([&] { run.fit(); }), HasSubstr(path.string()));
}

TEST(Checkpoint, OfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  const Parameter a(ir::Array::of<float>({2}, {1, 2}), true, "a"),
      b(ir::Array::of<float>({3}, {1, 2, 3}), true, "b");
  const auto load = [&](std::vector<NamedParameter> cells) {
    return test::error_of([&] { (void)load_checkpoint(folder / "c", cells); });
  };
  save_checkpoint(folder / "c", {{{"a", a}, {"b", b}}, {}});
  EXPECT_EQ(load({{"a", a}, {"b", b}}), "no error");
  EXPECT_THAT(load({{"a", a}}), HasSubstr("another number of tensors"));
  EXPECT_THAT(load({{"a", a}, {"c", b}}), HasSubstr("lacks tensor c"));
  EXPECT_THAT(load({{"a", b}, {"b", b}}),
              testing::AllOf(HasSubstr("tensor a"), HasSubstr("f32[2]"), HasSubstr("f32[3]")));
  EXPECT_THAT(test::error_of([&] {
                (void)load_checkpoint(folder / "none", std::vector<NamedParameter>{{"a", a}});
              }),
              HasSubstr((folder / "none").string()));
}

TEST(Checkpoint, OfAnotherPrecisionIsRefused) {
  const TemporaryFolder folder;
  SmallTraining f32({.checkpoint = folder / "c"});
  f32.fit();
  SmallTraining bf16({.precision = "bf16", .checkpoint = folder / "c"});
  EXPECT_THAT(test::error_of([&] { bf16.fit(); }),
              testing::AllOf(HasSubstr("another precision"), HasSubstr("f32"), HasSubstr("bf16")));
}

}  // namespace
}  // namespace espalier::train
