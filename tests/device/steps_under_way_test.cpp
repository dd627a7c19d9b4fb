// Training on a GPU without waiting for each step: what is under way when, and that nothing else differs from waiting.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/errors.h"
#include "support/folder.h"
#include "support/sim_plugin.h"
#include "support/small_training.h"

namespace espalier::train {
namespace {

using test::AtStep;
using test::error_of;
using test::RecordedGpu;
using test::SmallTraining;
using test::TemporaryFolder;
using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;
using Failing = test::RecordedDevice::Failing;

const Device gpu = Device::cuda();

struct Record : Callback {
  void on_step(const Progress& p) override { steps.push_back(p); }
  std::vector<Progress> steps;
  /// Everything but the time.
  std::string text() const {
    std::string all;
    for (const Progress& p : steps) {
      all += fmt::format("{}/{} {} {}/{} {} {} {} {}:", p.step, p.steps, p.epoch, p.batch, p.batches, p.rate,
                         p.loss_scale, p.skipped, p.end_of_epoch);
      for (const double v : p.values) all += fmt::format(" {}", v);
      all += "\n";
    }
    return all;
  }
};

class StepsUnderWay : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(test::use_sim_gpu()); }
  const TemporaryFolder folder_;
};

/// Three classes in 12 batches of two; the label of batch `bad` is none.
struct Classes {
  explicit Classes(TrainerOptions options, int64_t bad = 0, double size = 1)
      : loader(samples(bad), {.batch_size = 2}),
        trainer(
            [this, size](const std::vector<Tensor>& b) {
              return std::vector<Tensor>{nn::cross_entropy(net(b[0]), b[1]) * size};
            },
            cells, adam, loader, complete(std::move(options))) {
    trainer.add(record);
  }
  static std::shared_ptr<data::Dataset> samples(int64_t bad) {
    Array labels(Dtype::i32, {24});
    for (int i = 0; i < 24; ++i) labels.write<int32_t>()[i] = i % 3;
    if (bad > 0) labels.write<int32_t>()[2 * bad - 1] = 3;
    return std::make_shared<data::ArrayDataset>(
        std::vector<data::NamedArray>{{"x", Tensor::randn({24, 4}, 2).array()}, {"label", labels}});
  }
  static TrainerOptions complete(TrainerOptions o) {
    o.argument_ranges = {{1, {0, 3}}};
    return o;
  }
  std::string bits() {
    std::string all;
    const auto add = [&](const std::string&, Parameter& p) {
      all.append(static_cast<const char*>(p.storage().data()), static_cast<size_t>(p.storage().bytes()));
    };
    for (Parameter& p : cells) add("", p);
    adam.each_state(add);
    return all;
  }
  nn::Init init{1};
  nn::Linear net{4, 3, init};
  std::vector<Parameter> cells = parameters_of(net);
  nn::Adam adam{cells, {.rate = 0.05}};
  data::DataLoader loader;
  Trainer trainer;
  std::shared_ptr<Record> record = std::make_shared<Record>();
};

/// One wait of the host for each step, and then the next one is under way; its batch was copied beside the launches of the one before.
/// By vector clocks, over the steps of an epoch, in f16 with a scale that it finds, too.
TEST_F(StepsUnderWay, TheHostWaitsForAStepWhenTheNextIsBegun) {
  for (const std::string precision : {"f32", "f16"})
    for (const bool one_by_one : {false, true}) {
      const RecordedGpu recorded;
      std::vector<bool> waits;
      std::string order;
      SmallTraining run({.precision = precision, .device = gpu, .one_by_one = one_by_one});
      run.trainer().add(std::make_shared<AtStep>(10, [&] { recorded->forget(); }));
      run.trainer().add(std::make_shared<AtStep>(14, [&] {  // of 11 to 15, each of which is one launch by now
        waits = recorded->host_waits();
        order = test::order_of(recorded->work(), 2);
      }));
      EXPECT_EQ(run.fit(), Ending::finished);
      EXPECT_THAT(waits, AllOf(SizeIs(4), Each(one_by_one))) << precision;
      if (one_by_one) EXPECT_NE(order, "") << precision;
      else EXPECT_EQ(order, "") << precision;
    }
}

TEST_F(StepsUnderWay, ValuesAndBitsAreThoseOfWaiting) {
  for (const std::string precision : {"f32", "f16"}) {
    SmallTraining ahead({.precision = precision, .device = gpu}),
        waiting({.precision = precision, .device = gpu, .one_by_one = true});
    const auto a = std::make_shared<Record>(), w = std::make_shared<Record>();
    ahead.trainer().add(a);
    waiting.trainer().add(w);
    ahead.fit(), waiting.fit();
    EXPECT_EQ(a->text(), w->text());
    EXPECT_EQ(a->steps.size(), 20u);
    EXPECT_TRUE(ahead.bits() == waiting.bits()) << precision;
  }
}

/// A step that overflows changes nothing but the scale, which it halves: on a GPU as on the host, to the bit.
TEST_F(StepsUnderWay, StepsThatOverflowAreSkippedAsOnTheHost) {
  const TrainerOptions on_host{.precision = "f16"}, on_gpu{.precision = "f16", .device = gpu};
  const auto all = [](TrainerOptions o, int64_t steps) {
    o.steps = steps;
    return o;
  };
  constexpr double size = 40;
  Classes host(all(on_host, 2), 0, size), few(all(on_gpu, 2), 0, size), untrained(all(on_gpu, 2), 0, size);
  host.trainer.fit(), few.trainer.fit();
  EXPECT_EQ(few.trainer.steps_skipped(), 2) << "no overflow: the test shows nothing";
  few.adam.set_rate(0.05), host.adam.set_rate(0.05), untrained.adam.set_rate(0.05);
  EXPECT_TRUE(few.bits() == host.bits());
  EXPECT_TRUE(few.bits() == untrained.bits());
  Classes long_host(on_host, 0, size), long_gpu(on_gpu, 0, size);
  long_host.trainer.fit(), long_gpu.trainer.fit();
  const std::vector<Progress>&h = long_host.record->steps, &g = long_gpu.record->steps;
  ASSERT_EQ(g.size(), 12u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(g[i].loss_scale, h[i].loss_scale) << i;
    EXPECT_EQ(g[i].skipped, h[i].skipped) << i;
    EXPECT_THAT(g[i].values, SizeIs(1));
  }
  EXPECT_TRUE(g[0].skipped);
  EXPECT_EQ(g[1].loss_scale, g[0].loss_scale / 2);
  EXPECT_FALSE(g[11].skipped);
  EXPECT_EQ(long_gpu.trainer.steps_skipped(), long_host.trainer.steps_skipped());
}

/// A batch that is wrong is found while the step before it is under way: that one counts, and the error is its own.
TEST_F(StepsUnderWay, AStepThatCannotBeBegunIsNamedAndTheOnesBeforeItCount) {
  const auto error = [&](Classes& run) { return error_of([&] { run.trainer.fit(); }); };
  Classes host({}, 4), ahead({.device = gpu}, 4), waiting({.device = gpu, .one_by_one = true}, 4);
  const std::string want = error(host);
  EXPECT_THAT(want, HasSubstr("training, step 4 (epoch 1, batch 4), input label"));
  for (Classes* run : {&ahead, &waiting}) {
    EXPECT_EQ(error(*run), want);
    EXPECT_EQ(run->trainer.steps_done(), 3);
    EXPECT_THAT(run->record->steps, SizeIs(3));
  }
  EXPECT_TRUE(ahead.bits() == waiting.bits());
}

TEST_F(StepsUnderWay, WhatTheDeviceSaysIsOfTheStepThatFailed) {
  struct Case {
    Failing what;
    bool lost;
    int64_t done;  ///< behind the third step, when the fourth is under way
    std::string step;
  };
  for (const Case& c : {Case{Failing::upload, false, 4, "step 5 (epoch 1, batch 5), "},
                        Case{Failing::host_wait, false, 3, "step 4 (epoch 1, batch 4), "},
                        Case{Failing::host_wait, true, 3, "step 4 (epoch 1, batch 4), "}}) {
    const RecordedGpu recorded;
    Classes run({.device = gpu});
    run.trainer.add(std::make_shared<AtStep>(3, [&] { recorded->fail(c.what, c.lost); }));
    const std::string text = error_of([&] { run.trainer.fit(); });
    EXPECT_THAT(text, AllOf(HasSubstr("training, " + c.step), HasSubstr("made to fail")));
    EXPECT_THAT(text, c.lost ? testing::Matcher<std::string>(HasSubstr("(or step 5, which was under way)"))
                             : Not(HasSubstr("under way")));
    EXPECT_EQ(run.trainer.steps_done(), c.done) << text;
    EXPECT_EQ(run.record->steps.size(), static_cast<size_t>(c.done)) << text;
    if (c.lost) continue;
    EXPECT_EQ(run.trainer.fit(), Ending::finished) << "the device works";
  }
}

/// A step that fails when its parameters are written is told, also where the training is interrupted before its turn comes.
TEST_F(StepsUnderWay, AnInterruptionHidesNoStepThatWroteParameters) {
  const RecordedGpu recorded;
  Classes run({.device = gpu, .checkpoint = folder_ / "c"});
  run.trainer.add(std::make_shared<AtStep>(3, [&] { recorded->fail(Failing::download, false); }));
  run.trainer.add(std::make_shared<AtStep>(4, [] { set_interrupted(true); }));
  const std::string text = error_of([&] { run.trainer.fit(); });
  set_interrupted(false);
  EXPECT_THAT(text, AllOf(HasSubstr("training, step 5 (epoch 1, batch 5), "), HasSubstr("made to fail"),
                          HasSubstr("parameters are as after the run")));
  EXPECT_EQ(run.trainer.steps_done(), 4);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "c")) << "of no step";
}

/// The same where a callback throws: the next call of fit() tells it.
TEST_F(StepsUnderWay, ACallbackThatThrowsHidesNoStepThatWroteParameters) {
  const RecordedGpu recorded;
  Classes run({.device = gpu});
  run.trainer.add(std::make_shared<AtStep>(3, [&] { recorded->fail(Failing::download, false); }));
  run.trainer.add(std::make_shared<AtStep>(4, [] { throw UserError({"callback", "throws", "", ""}); }));
  EXPECT_THAT(error_of([&] { run.trainer.fit(); }), HasSubstr("callback: throws"));
  EXPECT_THAT(error_of([&] { run.trainer.fit(); }), HasSubstr("training, step 5 (epoch 1, batch 5), "));
  EXPECT_EQ(run.trainer.steps_done(), 4);
  EXPECT_EQ(run.trainer.fit(), Ending::finished);
}

/// What a callback throws, with the next step under way, leaves nothing half done: the training goes on to the same bits.
TEST_F(StepsUnderWay, ACallbackThatThrowsLosesNoStep) {
  Classes whole({.device = gpu}), cut({.device = gpu});
  whole.trainer.fit();
  cut.trainer.add(std::make_shared<AtStep>(3, [] { throw UserError({"callback", "throws", "", ""}); }));
  EXPECT_THAT(error_of([&] { cut.trainer.fit(); }), HasSubstr("callback: throws"));
  EXPECT_EQ(cut.trainer.steps_done(), 3);
  EXPECT_EQ(cut.trainer.fit(), Ending::finished);
  EXPECT_EQ(cut.record->text(), whole.record->text());
  EXPECT_TRUE(cut.bits() == whole.bits());
}

TEST_F(StepsUnderWay, AnInterruptionEndsAfterThemAndGoesOnToTheSameBits) {
  SmallTraining whole({.device = gpu});
  whole.fit();
  const auto interrupt = [](int64_t at) {
    return std::make_shared<AtStep>(at, [] { set_interrupted(true); });
  };
  SmallTraining cut({.device = gpu, .checkpoint = folder_ / "c"}),
      rest({.device = gpu, .checkpoint = folder_ / "c"});
  cut.trainer().add(interrupt(7));
  EXPECT_EQ(cut.fit(), Ending::interrupted);
  set_interrupted(false);
  EXPECT_EQ(cut.trainer().steps_done(), 8) << "the one under way is done, and no other begun";
  EXPECT_EQ(rest.fit(), Ending::finished);
  EXPECT_TRUE(rest.bits() == whole.bits());

  // The fourth batch is wrong, which is known before the third step is over: the checkpoint stands before it.
  Classes before({.device = gpu, .checkpoint = folder_ / "d"}, 4),
      after({.device = gpu, .checkpoint = folder_ / "d"}, 4);
  before.trainer.add(interrupt(3));
  EXPECT_EQ(before.trainer.fit(), Ending::interrupted);
  set_interrupted(false);
  EXPECT_EQ(before.trainer.steps_done(), 3);
  EXPECT_THAT(error_of([&] { after.trainer.fit(); }),
              HasSubstr("training, step 4 (epoch 1, batch 4), input label"));
  EXPECT_THAT(after.record->steps, SizeIs(0));
}

}  // namespace
}  // namespace espalier::train
