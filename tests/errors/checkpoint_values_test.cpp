// What a checkpoint says is checked against what was written, the training and the settings it is resumed with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/threads.h"
#include "format/safetensors.h"
#include "nn/layers.h"
#include "nn/losses.h"
#include "support/errors.h"
#include "support/folder.h"
#include "support/small_training.h"

namespace espalier::train {
namespace {

using test::SmallTraining;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

struct Notes : Callback {
  void on_note(const std::string& text) override { all.push_back(text); }
  std::vector<std::string> all;
};

/// A training of few steps on pictures whose convolutions the library shares out over its threads.
std::string checkpoint_of(const std::filesystem::path& path, int threads, std::vector<std::string>* notes) {
  const int before = pool_threads();
  set_threads(threads);
  nn::Init init(3);
  nn::Conv2d first(16, 32, 3, {.padding = 1}, init), second(32, 64, 3, {.padding = 1}, init);
  std::vector<Parameter> cells = parameters_of(first, "first");
  for (const Parameter& p : parameters_of(second, "second")) cells.push_back(p);
  nn::Sgd sgd(cells, {.rate = 1e-3});
  const auto samples = std::make_shared<data::FakeData>(
      16, std::vector<data::FakeField>{{"x", {Dtype::f32, {14, 14, 16}}, -1, 1}});
  data::DataLoader loader(samples, {.batch_size = 8, .workers = 0});
  Trainer trainer(
      [&](const std::vector<Tensor>& b) {
        return std::vector<Tensor>{second(nn::relu(first(b[0]))).square().mean()};
      },
      cells, sgd, loader, {.epochs = notes ? 2 : 1, .checkpoint = path});
  const auto heard = std::make_shared<Notes>();
  trainer.add(heard);
  trainer.fit();
  if (notes) *notes = heard->all;
  set_threads(before);
  return test::file_text(path);
}

TEST(CheckpointValues, ThePlanIsTheSameForAnyNumberOfThreads) {
  const TemporaryFolder folder;
  const std::string one = checkpoint_of(folder / "one", 1, nullptr);
  EXPECT_TRUE(checkpoint_of(folder / "two", 2, nullptr) == one);
  EXPECT_TRUE(checkpoint_of(folder / "four", 4, nullptr) == one);
  std::vector<std::string> notes;
  checkpoint_of(folder / "one", 3, &notes);
  EXPECT_THAT(notes, testing::IsEmpty());
}

TEST(CheckpointValues, AFlippedBitIsRefused) {
  const TemporaryFolder folder;
  SmallTraining first({.checkpoint = folder / "c"});
  first.fit();
  const std::string good = test::file_text(folder / "c");
  for (const size_t at : {good.size() - 1, good.size() - 50, good.size() - 120}) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    std::ofstream(folder / "c", std::ios::binary) << bytes;
    SmallTraining rest({.checkpoint = folder / "c"});
    const std::string before = rest.bits();
    EXPECT_THAT(test::error_of([&] { rest.fit(); }),
                AllOf(HasSubstr((folder / "c").string()), HasSubstr("damaged")))
        << at;
    EXPECT_TRUE(rest.bits() == before);
  }
}

/// The checkpoint with a fact changed, as its first version, which has no checksum.
void change_fact(const std::filesystem::path& path, const std::string& name, const std::string& value) {
  format::TensorFile file = format::load_safetensors(path);
  file.metadata["format"] = "espalier checkpoint 1";
  file.metadata.erase("checksum");
  file.metadata[name] = value;
  format::save_safetensors(path, file);
}

TEST(CheckpointValues, AFileWithoutChecksumOfTheFirstFormatIsRead) {
  const TemporaryFolder folder;
  SmallTraining whole, cut({.steps = 7, .checkpoint = folder / "c"});
  whole.fit();
  cut.fit();
  change_fact(folder / "c", "extra", "1");
  SmallTraining rest({.checkpoint = folder / "c"});
  rest.fit();
  EXPECT_TRUE(rest.bits() == whole.bits());
}

TEST(CheckpointValues, AStepThatCannotBeIsRefused) {
  const TemporaryFolder folder;
  for (const auto& [step, says] :
       {std::pair{"-3", "negative"}, {"21", "beyond the end"}, {"9", "loader's place"}}) {
    std::filesystem::remove(folder / "c");
    SmallTraining cut({.steps = 7, .checkpoint = folder / "c"});
    cut.fit();
    change_fact(folder / "c", "step", step);
    SmallTraining rest({.checkpoint = folder / "c"});
    EXPECT_THAT(test::error_of([&] { rest.fit(); }), AllOf(HasSubstr(step), HasSubstr(says)));
  }
}

TEST(CheckpointValues, OtherSettingsAreNamed) {
  const TemporaryFolder folder;
  const auto fit = [&](int64_t steps, const std::string& data) {
    SmallTraining run({.steps = steps,
                       .clip_norm = steps > 10 ? 2.0 : 1.0,
                       .checkpoint = folder / "c",
                       .settings = {{"data", data}}});
    const auto notes = std::make_shared<Notes>();
    run.trainer().add(notes);
    run.fit();
    return notes->all;
  };
  EXPECT_THAT(fit(7, "first"), testing::IsEmpty());
  EXPECT_THAT(fit(9, "first"), testing::IsEmpty());
  const auto notes = fit(12, "second");
  ASSERT_FALSE(notes.empty());
  EXPECT_THAT(notes[0], AllOf(HasSubstr("clip_norm 1 (now 2)"), HasSubstr("data first (now second)")));
}

TEST(CheckpointValues, AnotherBatchOrSeedIsNamed) {
  const auto samples =
      std::make_shared<data::FakeData>(10, std::vector<data::FakeField>{{"x", {Dtype::f32, {3}}}});
  data::DataLoader one(samples, {.batch_size = 4, .seed = 1}), other(samples, {.batch_size = 5, .seed = 2});
  EXPECT_THAT(test::error_of([&] { other.restore(one.state()); }),
              AllOf(HasSubstr("seed 1 (now 2)"), HasSubstr("batch_size 4 (now 5)"),
                    testing::Not(HasSubstr("samples 10 (now"))));
}

}  // namespace
}  // namespace espalier::train
