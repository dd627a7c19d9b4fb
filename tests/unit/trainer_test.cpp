// The Trainer: callbacks, checkpoints, resumption to the same bits.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/errors.h"
#include "support/process.h"
#include "support/small_training.h"

namespace espalier::train {
namespace {

using test::AtStep;
using test::SmallTraining;
using test::TemporaryFolder;

struct Record : Callback {
  void on_step(const Progress& p) override { steps.push_back(p); }
  bool on_epoch(const Progress& p) override { return ++epochs, p.epoch == stop_after; }
  void on_end(const Progress&) override { ++ends; }
  std::vector<Progress> steps;
  int64_t epochs = 0, ends = 0, stop_after = -1;
};

TEST(Trainer, CallbacksSeeEveryStepAndEpoch) {
  SmallTraining run;
  const auto record = std::make_shared<Record>();
  run.trainer().add(record);
  EXPECT_EQ(run.trainer().total_steps(), SmallTraining::steps);
  EXPECT_EQ(run.fit(), Ending::finished);
  ASSERT_EQ(record->steps.size(), 20u);
  EXPECT_EQ(record->epochs, 4);
  EXPECT_EQ(record->ends, 1);
  const nn::Schedule rate = nn::cosine_rate(0.05, SmallTraining::steps, 2);
  for (size_t i = 0; i < record->steps.size(); ++i) {
    const Progress& p = record->steps[i];
    EXPECT_EQ(p.step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(p.epoch, static_cast<int64_t>(i) / 5);
    EXPECT_EQ(p.batch, static_cast<int64_t>(i) % 5);
    EXPECT_EQ(p.end_of_epoch, i % 5 == 4);
    EXPECT_NEAR(p.rate, rate(static_cast<int64_t>(i)), 1e-8);
    EXPECT_TRUE(std::isfinite(p.values.at(0)));
  }
}

TEST(Trainer, ACallbackEndsTheTrainingAfterItsEpoch) {
  SmallTraining run;
  const auto record = std::make_shared<Record>();
  record->stop_after = 1;
  run.trainer().add(record);
  EXPECT_EQ(run.fit(), Ending::stopped_early);
  EXPECT_EQ(run.trainer().steps_done(), 10);
  EXPECT_EQ(record->ends, 1);
}

TEST(Trainer, TwoRunsGiveTheSameBits) {
  SmallTraining a, b;
  a.fit();
  b.fit();
  EXPECT_TRUE(a.bits() == b.bits());
}

TEST(Trainer, GoesOnFromItsCheckpointToTheSameBits) {
  const TemporaryFolder folder;
  SmallTraining whole;
  whole.trainer().add(std::make_shared<CsvLog>(folder / "whole.csv"));
  whole.fit();
  for (const int64_t at : {1, 5, 7, 19}) {  // inside an epoch and at its end
    const std::filesystem::path checkpoint = folder / ("cut" + std::to_string(at));
    {
      SmallTraining cut({.checkpoint = checkpoint});
      cut.trainer().add(std::make_shared<CsvLog>(folder / "cut.csv"));
      cut.trainer().add(std::make_shared<AtStep>(at, [] { set_interrupted(true); }));
      EXPECT_EQ(cut.fit(), Ending::interrupted);
      EXPECT_EQ(cut.trainer().steps_done(), at);
      set_interrupted(false);
    }
    SmallTraining rest({.checkpoint = checkpoint});
    rest.trainer().add(std::make_shared<CsvLog>(folder / "cut.csv"));
    EXPECT_EQ(rest.fit(), Ending::finished);
    EXPECT_TRUE(rest.bits() == whole.bits()) << "cut after step " << at;
    EXPECT_EQ(test::file_text(folder / "cut.csv"), test::file_text(folder / "whole.csv"))
        << "cut after step " << at;
  }
}

TEST(Trainer, AFinishedTrainingIsNotTrainedAgain) {
  const TemporaryFolder folder;
  SmallTraining first({.checkpoint = folder / "c"});
  first.fit();
  SmallTraining second({.checkpoint = folder / "c"});
  const auto record = std::make_shared<Record>();
  second.trainer().add(record);
  EXPECT_EQ(second.fit(), Ending::finished);
  EXPECT_TRUE(record->steps.empty());
  EXPECT_TRUE(second.bits() == first.bits());
  SmallTraining anew({.checkpoint = folder / "c", .resume = false});
  anew.trainer().add(record);
  anew.fit();
  EXPECT_EQ(record->steps.size(), 20u);
}

TEST(Trainer, CallbacksAreRestoredByNameNotByPlace) {
  const TemporaryFolder folder;
  SmallTraining whole;
  whole.trainer().add(std::make_shared<CsvLog>(folder / "whole.csv"));
  whole.fit();
  {
    SmallTraining cut({.checkpoint = folder / "c"});
    cut.trainer().add(std::make_shared<CsvLog>(folder / "cut.csv"));
    cut.trainer().add(std::make_shared<AtStep>(7, [] { set_interrupted(true); }));
    EXPECT_EQ(cut.fit(), Ending::interrupted);
    set_interrupted(false);
  }
  SmallTraining rest({.checkpoint = folder / "c"});
  rest.trainer().add(std::make_shared<EarlyStop>(100));  // new, and in front
  rest.trainer().add(std::make_shared<CsvLog>(folder / "cut.csv"));
  const auto second = std::make_shared<CsvLog>(folder / "second.csv");  // new: the second of its name
  rest.trainer().add(second);
  EXPECT_EQ(rest.fit(), Ending::finished);
  EXPECT_EQ(test::file_text(folder / "cut.csv"), test::file_text(folder / "whole.csv"));
  EXPECT_THAT(test::file_text(folder / "second.csv"), testing::StartsWith("step,epoch,rate,loss\n8,1,"));
}

TEST(Trainer, ALogThatIsNotTheCheckpointsIsRefusedAndAMissingOneBegun) {
  const TemporaryFolder folder;
  const auto fit = [&](int64_t cut_at) {
    SmallTraining run({.checkpoint = folder / "c"});
    run.trainer().add(std::make_shared<CsvLog>(folder / "log.csv"));
    run.trainer().add(std::make_shared<AtStep>(cut_at, [] { set_interrupted(true); }));
    const std::string error = test::error_of([&] { run.fit(); });
    set_interrupted(false);
    return error;
  };
  EXPECT_EQ(fit(7), "no error");
  const std::string whole = test::file_text(folder / "log.csv");
  for (const std::string& other :
       {whole.substr(0, 60), std::string(whole.size(), 'x'),
        std::string(whole).replace(whole.find("\n1,") + 3, 1, "7") + "8,1,1,1\n"}) {
    std::ofstream(folder / "log.csv") << other;
    EXPECT_THAT(fit(0), testing::HasSubstr("is not the file that the checkpoint goes on with"));
    EXPECT_EQ(test::file_text(folder / "log.csv"), other);
  }
  std::filesystem::remove(folder / "log.csv");
  EXPECT_EQ(fit(0), "no error");
  EXPECT_THAT(test::file_text(folder / "log.csv"), testing::StartsWith("step,epoch,rate,loss\n6,1,"))
      << "rows of the unfinished epoch are in the checkpoint";
}

TEST(Trainer, ACheckpointHoldsNoLog) {
  const TemporaryFolder folder;
  SmallTraining run({.checkpoint = folder / "c"});
  run.trainer().add(std::make_shared<CsvLog>(folder / "log.csv"));
  run.fit();
  const std::string log = test::file_text(folder / "log.csv");
  EXPECT_EQ(test::file_text(folder / "c").find(log.substr(log.size() - 20, 10)), std::string::npos);
}

TEST(Trainer, WhatACallbackThrowsAfterAnEpochLosesNoEpoch) {
  struct Thrower : Callback {
    bool on_epoch(const Progress& p) override {
      return p.epoch == 1 ? throw UserError({"thrower", "throws", "", ""}) : false;
    }
  };
  const TemporaryFolder folder;
  SmallTraining whole, cut({.checkpoint = folder / "c"}), rest({.checkpoint = folder / "c"});
  whole.trainer().add(std::make_shared<CsvLog>(folder / "whole.csv"));
  whole.fit();
  cut.trainer().add(std::make_shared<Thrower>());
  cut.trainer().add(std::make_shared<CsvLog>(folder / "log.csv"));
  EXPECT_THAT(test::error_of([&] { cut.fit(); }), testing::HasSubstr("thrower"));
  const auto record = std::make_shared<Record>();
  rest.trainer().add(record);
  rest.trainer().add(std::make_shared<CsvLog>(folder / "log.csv"));
  rest.fit();
  EXPECT_EQ(record->steps.front().step, 11);
  EXPECT_TRUE(rest.bits() == whole.bits());
  EXPECT_EQ(test::file_text(folder / "log.csv"), test::file_text(folder / "whole.csv"));
}

TEST(Trainer, WhatFailsAtTheEndOfAnEpochLosesNoEpoch) {
  const TemporaryFolder folder;
  for (const bool of_held_out : {false, true}) {
    const std::filesystem::path path = folder / (of_held_out ? "held_out" : "on_step");
    const auto fail = [] { throw UserError({"evaluation", "fails", "", ""}); };
    const auto calls = std::make_shared<int>(0);
    TrainerOptions options{.checkpoint = path};
    if (of_held_out)
      options.held_out = [=] {
        if (++*calls == 3) fail();  // the first is before the first step
        return std::vector<double>{1};
      };
    SmallTraining cut(options), rest({.checkpoint = path, .held_out = [] { return std::vector<double>{1}; }});
    if (!of_held_out) cut.trainer().add(std::make_shared<AtStep>(10, fail));
    const auto early = [&](SmallTraining& run) {
      if (of_held_out) run.trainer().add(std::make_shared<EarlyStop>(9, 0, 0, EarlyStop::Of::held_out));
      run.trainer().add(std::make_shared<CsvLog>(path.string() + ".csv"));
    };
    early(cut), early(rest);
    EXPECT_THAT(test::error_of([&] { cut.fit(); }), testing::HasSubstr("evaluation: fails"));
    const auto record = std::make_shared<Record>();
    rest.trainer().add(record);
    EXPECT_EQ(rest.fit(), Ending::finished);
    EXPECT_EQ(record->steps.front().step, 11);
  }
}

TEST(Trainer, ALogThatIsLostWhileItTrainsBeginsAnew) {
  struct Notes : Callback {
    void on_note(const std::string& text) override { all.push_back(text); }
    std::vector<std::string> all;
  };
  const TemporaryFolder folder;
  for (const bool removed : {false, true}) {
    const std::filesystem::path log = folder / (removed ? "removed.csv" : "cut.csv"), c = folder / "c";
    std::filesystem::remove(c);
    SmallTraining run({.checkpoint = c}), rest({.checkpoint = c});
    const auto notes = std::make_shared<Notes>();
    run.trainer().add(notes);
    run.trainer().add(std::make_shared<CsvLog>(log));
    run.trainer().add(std::make_shared<AtStep>(7, [&] {
      if (removed) std::filesystem::remove(log);
      else std::filesystem::resize_file(log, 30);
    }));
    run.trainer().add(std::make_shared<AtStep>(17, [] { set_interrupted(true); }));
    EXPECT_EQ(run.fit(), Ending::interrupted);
    set_interrupted(false);
    EXPECT_THAT(notes->all, testing::ElementsAre(testing::HasSubstr("begins anew")));
    rest.trainer().add(std::make_shared<CsvLog>(log));
    EXPECT_EQ(rest.fit(), Ending::finished);
    const std::string text = test::file_text(log);
    EXPECT_THAT(text, testing::StartsWith("step,epoch,rate,loss\n6,1,"));
    EXPECT_THAT(text, testing::HasSubstr("\n20,3,"));
    EXPECT_EQ(text.find('\0'), std::string::npos);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 16);
  }
}

TEST(Trainer, WhatCannotBeWrittenIsKnownBeforeTheFirstStep) {
  const TemporaryFolder folder;
  const auto record = std::make_shared<Record>();
  SmallTraining run({.checkpoint = folder / "absent" / "c"}), logged;
  run.trainer().add(record);
  EXPECT_THAT(test::error_of([&] { run.fit(); }), testing::HasSubstr("absent/c"));
  logged.trainer().add(record);
  logged.trainer().add(std::make_shared<CsvLog>(folder / "absent" / "log.csv"));
  EXPECT_THAT(test::error_of([&] { logged.fit(); }), testing::HasSubstr("absent/log.csv"));
  EXPECT_TRUE(record->steps.empty());
}

/// sqrt(p) at p = 0: a finite loss whose gradient is not.
TEST(Trainer, CellsThatAnUpdateMadeNotFiniteAreNeverSaved) {
  const TemporaryFolder folder;
  Parameter p(Array::of<float>({1}, {0}), true, "p"), mask(Array::of<float>({1}, {-INFINITY}), false, "mask");
  nn::Sgd sgd({p}, {.rate = 1});
  data::DataLoader loader(
      std::make_shared<data::FakeData>(2, std::vector<data::FakeField>{{"x", {Dtype::f32, {1}}, 1, 1}}),
      {.batch_size = 2});
  const auto fit = [&](const char* checkpoint, bool broken) {
    Trainer trainer(
        [&](const std::vector<Tensor>& in) {
          const Tensor masked = maximum(p.tensor() + in[0], mask.tensor());
          return std::vector<Tensor>{(broken ? p.tensor().sqrt() * in[0] : masked).sum()};
        },
        {p, mask}, sgd, loader,
        {.checkpoint = *checkpoint ? folder / checkpoint : std::filesystem::path(), .resume = false});
    return test::error_of([&] { trainer.fit(); });
  };
  EXPECT_EQ(fit("c", false), "no error") << "a mask may hold what it likes";
  const std::string before = test::file_text(folder / "c");
  static_cast<float*>(p.write())[0] = 0;
  EXPECT_THAT(fit("c", true), testing::AllOf(testing::HasSubstr("model.p is not finite after the update"),
                                             testing::HasSubstr("kept in " + (folder / "c").string())));
  EXPECT_TRUE(test::file_text(folder / "c") == before);
  static_cast<float*>(p.write())[0] = 0;
  EXPECT_THAT(fit("", true), testing::HasSubstr("not finite"));
}

TEST(Trainer, ABatchThatIsNotFullHasAStepOfItsOwn) {
  const auto sum_of = [](int64_t samples, int64_t batch) {
    Parameter p(Array::of<float>({1}, {0}), true, "p");
    nn::Sgd sgd({p}, {.rate = 1});
    data::DataLoader loader(std::make_shared<data::FakeData>(
                                samples, std::vector<data::FakeField>{{"x", {Dtype::f32, {1}}, 1, 1}}),
                            {.batch_size = batch});
    Trainer trainer(
        [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{(p.tensor() * in[0]).sum()}; }, {p},
        sgd, loader, {.epochs = 2});
    trainer.fit();
    EXPECT_EQ(trainer.steps_done(), 2 * ((samples + batch - 1) / batch));
    return p.storage().at(0);
  };
  EXPECT_EQ(sum_of(10, 4), -20);
  EXPECT_EQ(sum_of(3, 8), -6);
  EXPECT_EQ(sum_of(8, 4), -16);
}

TEST(Trainer, SaysWhenACheckpointIsOfAnotherPlan) {
  struct Notes : Callback {
    void on_note(const std::string& text) override { all.push_back(text); }
    std::vector<std::string> all;
  };
  const TemporaryFolder folder;
  SmallTraining cut({.steps = 7, .checkpoint = folder / "c"});
  cut.fit();
  for (const char* device : {"cpu", "reference"}) {
    std::filesystem::copy_file(folder / "c", folder / "copy",
                               std::filesystem::copy_options::overwrite_existing);
    SmallTraining rest({.device = Device::named(device), .checkpoint = folder / "copy"});
    const auto notes = std::make_shared<Notes>();
    rest.trainer().add(notes);
    rest.fit();
    const bool other = device != std::string("cpu");
    EXPECT_EQ(notes->all.size(), other ? 1u : 0u);
    if (other) EXPECT_THAT(notes->all.at(0), testing::HasSubstr("another plan"));
  }
}

TEST(Trainer, AnotherPrecisionOrABrokenStateLeavesTheCellsAsTheyAre) {
  const TemporaryFolder folder;
  SmallTraining first({.checkpoint = folder / "c"});
  first.fit();
  SmallTraining other({.precision = "bf16", .checkpoint = folder / "c"});
  const std::string before = other.bits();
  EXPECT_THROW(other.fit(), UserError);
  EXPECT_TRUE(other.bits() == before) << "the checkpoint's elements were filled in before it was refused";
}

TEST(Trainer, RefusesNamesThatACheckpointCannotKeepApart) {
  const TemporaryFolder folder;
  SmallTraining run;
  const auto trainer = [&](std::vector<Parameter> cells, std::filesystem::path checkpoint) {
    static nn::Sgd sgd({Parameter(Array(Dtype::f32, {2}))}, {});
    static data::DataLoader loader(
        std::make_shared<data::FakeData>(8, std::vector<data::FakeField>{{"x", {Dtype::f32, {2}}, 0, 1}}),
        {.batch_size = 4});
    Trainer([](const std::vector<Tensor>& in) { return std::vector<Tensor>{in[0].sum()}; }, std::move(cells),
            sgd, loader, {.checkpoint = std::move(checkpoint)});
  };
  const Parameter a(Array(Dtype::f32, {2}), true, "a"), b(Array(Dtype::f32, {2}), true, "a"),
      none(Array(Dtype::f32, {2}));
  EXPECT_THROW(trainer({a, b}, folder / "c"), UserError);
  EXPECT_THROW(trainer({none}, folder / "c"), UserError);
  EXPECT_NO_THROW(trainer({a}, folder / "c"));
  EXPECT_NO_THROW(trainer({a, b}, ""));
}

static_assert(!std::is_copy_constructible_v<Trainer> && !std::is_move_constructible_v<Trainer> &&
              !std::is_copy_assignable_v<Trainer> && !std::is_move_assignable_v<Trainer>);

TEST(Callbacks, RefuseAStateThatIsNotTheirs) {
  EarlyStop stop(2);
  for (const char* text :
       {"", "1", "1 0 1 x", "step,epoch,rate,loss\n", "1 0 1 1 1", "nan? 0 1 1", "1 0 -1 1"})
    EXPECT_THROW(stop.restore(text), UserError) << text;
  EXPECT_EQ(stop.state(), EarlyStop(2).state());
  CsvLog log("never written", {"loss"});
  for (const char* text : {"", "step,epoch,rate,loss\n", "7\nstep,epoch,rate,loss,dice\n", "1.5 0 1 1",
                           "-1\nstep,epoch,rate,loss\n", "9\nstep,epoch,rate,loss\n1,0"})
    EXPECT_THROW(log.restore(text), UserError) << text;
  EXPECT_EQ(log.state(), "0 cbf29ce484222325\nstep,epoch,rate,loss\nstep,epoch,rate,loss\n");
  EXPECT_THAT(test::error_of([&] { log.restore("0\nstep,epoch,rate,loss\nstep,epoch,rate,loss\n"); }),
              testing::HasSubstr("older version"));
  EXPECT_THROW(EarlyStop(0), UserError);
  EXPECT_THROW(EarlyStop(1, -1), UserError);
}

/// A regression whose loss is `size` times as large, by Adam; the last loss, undone.
double last_loss_of(double size, TrainerOptions options, Record* record = nullptr) {
  const auto data = std::make_shared<data::Mapped>(
      std::make_shared<data::FakeData>(
          16, std::vector<data::FakeField>{{"x", {Dtype::f32, {4}}, -1, 1}, {"y", {Dtype::f32, {1}}, 0, 1}}),
      [](data::Sample s, data::Rng&) {
        s[1].value.write<float>()[0] = s[0].value.data<float>()[0];
        return s;
      });
  data::DataLoader loader(data, {.batch_size = 16});
  nn::Init init(1);
  nn::Linear layer(4, 1, init);
  nn::Adam adam(parameters_of(layer), {.rate = 0.05, .eps = 1e-20});
  options.epochs = 60;
  Trainer trainer(
      [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{nn::mse(layer(in[0]), in[1]) * size}; },
      parameters_of(layer), adam, loader, options);
  const auto seen = std::make_shared<Record>();
  trainer.add(seen);
  trainer.fit();
  if (record) *record = *seen;
  return seen->steps.back().values[0] / size;
}

TEST(Trainer, F16FindsALossScaleSoThatSmallGradientsTrain) {
  const double f32 = last_loss_of(1e-9, {});
  EXPECT_LT(f32, 0.02);
  EXPECT_NEAR(last_loss_of(1e-9, {.precision = "f16"}), f32, 0.01);
  EXPECT_NEAR(last_loss_of(1e-9, {.precision = "f16", .loss_scale = 65536}), f32, 0.01);
  EXPECT_GT(last_loss_of(1e-9, {.precision = "f16", .loss_scale = 1}), 0.05)
      << "no underflow: the test shows nothing";
  Record record;
  EXPECT_NEAR(last_loss_of(1e3, {.precision = "f16"}, &record), f32, 0.02);
  EXPECT_EQ(record.steps[0].loss_scale, 65536);
  EXPECT_TRUE(record.steps[0].skipped);
  EXPECT_FALSE(record.steps.back().skipped);
  EXPECT_LT(record.steps.back().loss_scale, 65536);
}

TEST(Trainer, SaysWhenNoLossScaleKeepsTheGradientsFinite) {
  try {
    last_loss_of(1e7, {.precision = "f16"});
    FAIL() << "trained on without a single update";
  } catch (const UserError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("the gradients are not finite"));
  }
}

TEST(Trainer, ChecksClipAndLossScale) {
  EXPECT_THROW(last_loss_of(1, {.clip_norm = -1}), UserError);
  EXPECT_THROW(last_loss_of(1, {.precision = "f16", .loss_scale = -1}), UserError);
  EXPECT_THROW(last_loss_of(1, {.precision = "bf16", .loss_scale = 2}), UserError);
  EXPECT_THROW(last_loss_of(1, {.loss_scale = 2}), UserError);
}

TEST(Trainer, ClipsTheNormOfAllGradients) {
  Parameter w(Array::of<float>({2}, {0, 0}), true, "w");
  nn::Sgd sgd({w}, {.rate = 1});
  data::DataLoader loader(
      std::make_shared<data::FakeData>(2, std::vector<data::FakeField>{{"x", {Dtype::f32, {2}}, 1, 1}}),
      {.batch_size = 2});
  Trainer trainer(
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{(w.tensor() * in[0] * Tensor::of({3, 4})).sum()};
      },
      {w}, sgd, loader, {.clip_norm = 0.5});
  trainer.fit();
  EXPECT_NEAR(w.storage().at(0), -0.3, 1e-4);
  EXPECT_NEAR(w.storage().at(1), -0.4, 1e-4);
}

TEST(Trainer, CsvHasARowForEachStep) {
  const TemporaryFolder folder;
  SmallTraining run;
  run.trainer().add(std::make_shared<CsvLog>(folder / "log.csv"));
  run.fit();
  const std::string text = test::file_text(folder / "log.csv");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 21);
  EXPECT_EQ(text.substr(0, text.find('\n')), "step,epoch,rate,loss");
  EXPECT_THAT(text, testing::HasSubstr("\n20,3,"));
}

TEST(EarlyStop, WaitsForPatienceEpochsWithoutBetterMeans) {
  EarlyStop stop(2, 0.1);
  const auto epoch = [&](double a, double b) {
    Progress p;
    p.values = {a};
    stop.on_step(p);
    p.values = {b};
    stop.on_step(p);
    return stop.on_epoch(p);
  };
  EXPECT_FALSE(epoch(2, 4));       // mean 3
  EXPECT_FALSE(epoch(1, 3));       // 2: better
  EXPECT_FALSE(epoch(1.9, 1.95));  // better by less than 0.1: waits once
  EarlyStop again(2, 0.1);
  again.restore(stop.state());
  EXPECT_EQ(again.state(), stop.state());
  EXPECT_FALSE(epoch(0, 1));  // 0.5: better, the count begins again
  EXPECT_FALSE(epoch(1, 1));
  EXPECT_TRUE(epoch(1, 1));
  Progress p;
  p.values = {5};
  again.on_step(p);
  EXPECT_TRUE(again.on_epoch(p)) << "the restored one had waited once";
}

TEST(EarlyStop, ATrainingThatHasEndedStaysEnded) {
  const TemporaryFolder folder;
  const auto early = [](int64_t patience) {
    return std::make_shared<EarlyStop>(patience, 1e6);
  };  // nothing is better
  SmallTraining first({.checkpoint = folder / "c"});
  first.trainer().add(early(1));
  EXPECT_EQ(first.fit(), Ending::stopped_early);
  EXPECT_EQ(first.trainer().steps_done(), 10) << "the first epoch is better than none";
  const std::string bits = first.bits();
  EXPECT_EQ(first.fit(), Ending::stopped_early);
  EXPECT_EQ(first.trainer().steps_done(), 10) << "the same object trained on";
  SmallTraining resumed({.checkpoint = folder / "c"}), patient({.checkpoint = folder / "c"});
  resumed.trainer().add(early(1));
  EXPECT_EQ(resumed.fit(), Ending::stopped_early);
  EXPECT_TRUE(resumed.bits() == bits) << "resumed, it trained on";
  patient.trainer().add(early(2));
  EXPECT_EQ(patient.fit(), Ending::stopped_early);
  EXPECT_EQ(patient.trainer().steps_done(), 15);
}

/// One number p that training pushes down by 1 a step; held-out values are (p + 7)^2 and p.
TEST(Trainer, HeldOutValuesReachCallbacksAndEndATraining) {
  const TemporaryFolder folder;
  struct Run {
    explicit Run(TrainerOptions options) {
      options.epochs = 20;
      options.held_out = mean_over(
          [this](const std::vector<Tensor>& in) {
            return std::vector<Tensor>{((p.tensor() + 7).square() * in[0]).mean(),
                                       (p.tensor() * in[0]).mean()};
          },
          held_out);
      trainer = std::make_unique<Trainer>(
          [this](const std::vector<Tensor>& in) { return std::vector<Tensor>{(p.tensor() * in[0]).mean()}; },
          std::vector<Parameter>{p}, sgd, loader, options);
      trainer->add(record);
      trainer->add(std::make_shared<EarlyStop>(2, 0, 0, EarlyStop::Of::held_out));
    }
    static std::shared_ptr<data::Dataset> ones(int64_t n) {
      return std::make_shared<data::FakeData>(n,
                                              std::vector<data::FakeField>{{"x", {Dtype::f32, {1}}, 1, 1}});
    }
    Parameter p{Array::of<float>({1}, {0}), true, "p"};
    nn::Sgd sgd{{p}, {.rate = 1}};
    data::DataLoader loader{ones(8), {.batch_size = 4}}, held_out{ones(5), {.batch_size = 2}};
    std::shared_ptr<Record> record = std::make_shared<Record>();
    std::unique_ptr<Trainer> trainer;
  };
  Run whole({});
  EXPECT_EQ(whole.trainer->fit(), Ending::stopped_early);
  EXPECT_EQ(whole.trainer->steps_done(), 10) << "best after 6 steps, 1; or after 8, no better; then 9";
  EXPECT_TRUE(whole.record->steps[0].held_out.empty());
  ASSERT_EQ(whole.record->steps[3].held_out.size(), 2u);
  EXPECT_NEAR(whole.record->steps[3].held_out[0], 9, 1e-4);
  EXPECT_NEAR(whole.record->steps[3].held_out[1], -4, 1e-4);
  Run cut({.steps = 8, .checkpoint = folder / "c"}), rest({.checkpoint = folder / "c"});
  EXPECT_EQ(cut.trainer->fit(), Ending::finished);
  EXPECT_EQ(rest.trainer->fit(), Ending::stopped_early);
  EXPECT_EQ(rest.trainer->steps_done(), 10) << "the resumed one had waited once";

  SmallTraining none, few({.held_out = [] { return std::vector<double>{1}; }});
  for (SmallTraining* run : {&none, &few}) {
    run->trainer().add(std::make_shared<EarlyStop>(2, 0, 1, EarlyStop::Of::held_out));
    EXPECT_THAT(test::error_of([&] { run->fit(); }), testing::HasSubstr("gives no such value"));
    EXPECT_EQ(run->trainer().steps_done(), 0);
  }
}

TEST(Evaluate, LeavesTheLoaderWhereItWas) {
  data::DataLoader loader(
      std::make_shared<data::FakeData>(10, std::vector<data::FakeField>{{"x", {Dtype::f32, {1}}, 0, 1}}),
      {.batch_size = 4, .shuffle = true, .seed = 3});
  const auto samples = [](const data::Batch& b) {
    return std::vector<int64_t>(b.samples.begin(), b.samples.end());
  };
  for (int i = 0; i < 4; ++i) (void)loader.next();
  const data::LoaderState before = loader.state();
  const std::vector<int64_t> next = samples(loader.next());
  loader.restore(before);
  const EvaluateFn values =
      mean_over([](const std::vector<Tensor>& in) { return std::vector<Tensor>{in[0].mean()}; }, loader);
  EXPECT_EQ(values(), values());
  EXPECT_EQ(loader.state(), before);
  EXPECT_EQ(samples(loader.next()), next);
}

TEST(Trainer, ALogHasHeldOutValuesInTheRowsThatEndAnEpoch) {
  const TemporaryFolder folder;
  SmallTraining run({.held_out = [] { return std::vector<double>{0.5}; }});
  run.trainer().add(std::make_shared<CsvLog>(folder / "log.csv", std::vector<std::string>{"loss"},
                                             std::vector<std::string>{"val_loss"}));
  run.fit();
  std::istringstream log(test::file_text(folder / "log.csv"));
  std::string line;
  std::getline(log, line);
  EXPECT_EQ(line, "step,epoch,rate,loss,val_loss");
  for (int step = 1; std::getline(log, line); ++step)
    EXPECT_EQ(line.substr(line.rfind(',')), step % 5 == 0 ? ",0.5" : ",") << line;
}

TEST(ProgressBar, WritesALinePerEpochWithoutATerminal) {
  const TemporaryFolder folder;
  std::FILE* out = std::fopen((folder / "progress").c_str(), "w");
  {
    SmallTraining run;
    run.trainer().add(std::make_shared<ProgressBar>(std::vector<std::string>{"loss"}, out));
    run.fit();
  }
  std::fclose(out);
  const std::string text = test::file_text(folder / "progress");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
  EXPECT_THAT(text, testing::HasSubstr("epoch 4 step 20/20  loss "));
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

}  // namespace
}  // namespace espalier::train
