// The main job as a user calls it, on a small phantom: what it writes, what a second call does, what a killed one leaves.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "data/nifti.h"
#include "support/folder.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using ir::Array;
using ir::Dtype;

class Demo : public testing::Test {
 protected:
  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path();
  fs::path log_ = folder_ / "log";

  void SetUp() override {
    fs::create_directories(folder_ / "data/images");
    fs::create_directories(folder_ / "data/masks");
    write_phantom("a");
  }

  /// Two rings in noise: labels 1 and 2.
  void write_phantom(const std::string& name) const {
    Array image(Dtype::u8, {20, 36, 34}), mask(Dtype::u8, image.dims());
    for (int64_t i = 0; i < image.size(); ++i) {
      const int64_t y = i / 34 % 36 - 18, x = i % 34 - 17, distance = y * y + x * x;
      const int label = distance < 30 ? 2 : distance < 120 ? 1 : 0;
      mask.set(i, label);
      image.set(i, 30 + 80 * label + static_cast<double>(i * 7919 % 23));
    }
    data::save_nifti(folder_ / "data/images" / (name + ".nii"), image, {});
    data::save_nifti(folder_ / "data/masks" / (name + ".nii.gz"), mask, {});
  }

  pid_t start(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {ESPALIER_TOOL, "demo"});
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 1, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t child = 0;
    EXPECT_EQ(::posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    return child;
  }
  static int wait(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int call(const std::vector<std::string>& arguments) const { return wait(start(arguments)); }
  std::vector<std::string> train(const fs::path& out, int steps = 6) const {
    return {"--data", (folder_ / "data").string(), "--out", out.string(), "--steps", std::to_string(steps)};
  }
  std::string log() const { return read_file(log_); }
};

TEST_F(Demo, WritesAReportAModelAndTheSameOutputsFromAFreshProcess) {
  const fs::path out = folder_ / "out";
  ASSERT_EQ(call(train(out)), 0) << log();
  EXPECT_NE(log().find("bit for bit"), std::string::npos) << log();
  for (const char* name : {"report.html", "model.onnx", "training.csv", "checkpoint.safetensors", "run.json",
                           "overlays", "outputs/logits.npy"})
    EXPECT_TRUE(fs::exists(out / name)) << name;
  EXPECT_EQ(read_file(out / "outputs/logits.npy"), read_file(out / "outputs_fresh/logits.npy"));
  const std::string page = read_file(out / "report.html");
  for (const char* part : {"This is ONE volume", "label_1", "label_2", "data:image/png;base64,", "<svg"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  for (const char* part : {"http:", "https:", "<script", "<link"})
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  for (const auto& e : fs::recursive_directory_iterator(out))
    EXPECT_FALSE(is_temporary_file(e.path())) << e.path();

  const std::string checkpoint = read_file(out / "checkpoint.safetensors");
  ASSERT_EQ(call(train(out)), 0) << log();  // only shows what is there
  EXPECT_NE(log().find("finished earlier"), std::string::npos) << log();
  EXPECT_EQ(log().find("train   "), std::string::npos) << log();
  ASSERT_EQ(call([&] {
              auto a = train(out);
              a.push_back("--again");
              return a;
            }()),
            0)
      << log();
  EXPECT_NE(log().find("train   "), std::string::npos) << log();
  EXPECT_EQ(read_file(out / "checkpoint.safetensors"), checkpoint);  // a training is its seed's
}

TEST_F(Demo, TheSameDataHasOneFolderOnlyItsOwn) {
  fs::create_directory(folder_ / "work");
  const test::CurrentFolder here(folder_ / "work");
  const std::vector<fs::path> old{"run.json", "report.html", "overlays/old_001.png", "outputs/b.npy",
                                  "outputs_fresh/b.npy"},
      mine{"mine.txt", "overlays/mine.txt", "overlays/mine.png", "outputs/mine.npy",
           "outputs_fresh/mine.npy"};  // of other data, and not the demo's
  for (const char* name : {"overlays", "outputs", "outputs_fresh"}) make_folder(fs::path("demo/data") / name);
  for (const fs::path& p : old)
    write_file("demo/data" / p, R"({"key": "of other data", "summary": "old", "files": ["report.html",
      "overlays/old_001.png", "outputs/b.npy", "outputs_fresh/b.npy", "../../kept.txt", "/kept.txt"]})");
  write_file("kept.txt", "outside");
  for (const fs::path& p : mine) write_file("demo/data" / p, "notes");
  write_file("demo/report.html", "of the brain");
  EXPECT_EQ(call({"--data", "../data/", "--steps", "2"}), 0) << log();
  for (size_t i = 2; i < old.size(); ++i) EXPECT_FALSE(fs::exists("demo/data" / old[i])) << old[i];
  for (const fs::path& p : mine) EXPECT_TRUE(fs::exists("demo/data" / p)) << p;
  EXPECT_TRUE(fs::exists("demo/data/model.onnx"));
  EXPECT_TRUE(fs::exists("kept.txt"));

  fs::create_directory_symlink(folder_ / "work/demo", folder_ / "data/demo");
  for (const char* name : {"../data", "../data/", ".", "./", "images/.."}) {
    fs::current_path(folder_ / "data");
    EXPECT_EQ(call({"--data", name, "--steps", "2"}), 0) << log();
    EXPECT_NE(log().find("finished earlier"), std::string::npos) << name << log();
  }
  EXPECT_EQ(read_file("demo/report.html"), "of the brain");
  EXPECT_EQ(call({"--data", "/", "--steps", "2"}), 2) << log();
}

TEST_F(Demo, AFolderThatIsNotItsOwnLosesNothing) {
  const fs::path out = folder_ / "out";
  for (const char* name : {"overlays", "outputs", "outputs_fresh"}) make_folder(out / name);
  const std::vector<fs::path> mine{"overlays/mine.png", "outputs/mine.npy", "outputs_fresh/mine.npy"};
  for (const fs::path& p : mine) write_file(out / p, "mine");
  for (const char* name : {"model.onnx", "report.html", "outputs/logits.npy", "checkpoint.safetensors"}) {
    write_file(out / name, "mine");
    for (const bool again : {false, true}) {
      auto arguments = train(out, 2);
      if (again) arguments.push_back("--again");
      EXPECT_EQ(call(arguments), 3) << log();
      EXPECT_NE(log().find(name), std::string::npos) << log();
      EXPECT_NE(log().find("--out"), std::string::npos) << log();
    }
    EXPECT_TRUE(read_file(out / name) == "mine") << name;
    fs::remove(out / name);
  }
  write_file(out / "run.json", "{\"lanes\": 4}");
  EXPECT_EQ(call(train(out, 2)), 3) << log();
  EXPECT_EQ(read_file(out / "run.json"), "{\"lanes\": 4}");
  fs::remove(out / "run.json");
  EXPECT_EQ(call(train(out, 2)), 0) << log();
  for (const fs::path& p : mine) EXPECT_TRUE(read_file(out / p) == "mine") << p;
}

TEST_F(Demo, DotsBehindALinkAreOfWhereItLeads) {
  make_folder(folder_ / "work/sub");
  fs::create_directory_symlink(folder_ / "data/images", folder_ / "work/sub/link");
  const test::CurrentFolder here(folder_ / "work/sub");
  EXPECT_EQ(call({"--data", "link/..", "--steps", "2"}), 0) << log();
  EXPECT_TRUE(fs::exists("demo/data/model.onnx"));
}

TEST_F(Demo, KilledItGoesOnToTheSameBits) {
  const fs::path killed = folder_ / "killed", whole = folder_ / "whole";
  const pid_t child = start(train(killed, 9));
  for (int i = 0; i < 6000 && !fs::exists(killed / "checkpoint.safetensors"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ::kill(child, SIGKILL);
  wait(child);
  ASSERT_TRUE(fs::exists(killed / "checkpoint.safetensors")) << log();
  ASSERT_EQ(call(train(killed, 9)), 0) << log();
  ASSERT_EQ(call(train(whole, 9)), 0) << log();
  EXPECT_EQ(read_file(killed / "checkpoint.safetensors"), read_file(whole / "checkpoint.safetensors"));
  EXPECT_EQ(read_file(killed / "training.csv"), read_file(whole / "training.csv"));
  EXPECT_EQ(read_file(killed / "outputs/logits.npy"), read_file(whole / "outputs/logits.npy"));
}

TEST_F(Demo, InterruptedItSaysHowToGoOn) {
  const fs::path out = folder_ / "out";
  const pid_t child = start(train(out, 100000));
  for (int i = 0; i < 6000 && !fs::exists(out / "checkpoint.safetensors"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ::kill(child, SIGINT);
  EXPECT_EQ(wait(child), 130);
  EXPECT_NE(log().find("the same call goes on from"), std::string::npos) << log();
  EXPECT_FALSE(fs::exists(out / "report.html"));
}

TEST_F(Demo, NamesWhatIsWrongWithTheData) {
  const fs::path out = folder_ / "out";
  const auto refuses = [&](const std::string& what) {
    EXPECT_EQ(call(train(out)), 3) << log();
    EXPECT_NE(log().find(what), std::string::npos) << log();
    EXPECT_FALSE(fs::exists(out));
  };
  fs::rename(folder_ / "data/masks/a.nii.gz", folder_ / "data/masks/b.nii.gz");
  refuses("image has no mask");
  fs::rename(folder_ / "data/masks/b.nii.gz", folder_ / "data/masks/a.nii.gz");
  const std::string image = read_file(folder_ / "data/images/a.nii");
  write_file(folder_ / "data/images/a.nii", image.substr(0, image.size() / 2));
  refuses("images/a.nii");
  fs::remove_all(folder_ / "data/images");
  refuses("does not exist");
  EXPECT_EQ(call({"--steps", "0"}), 2);
  EXPECT_EQ(call({"--unknown"}), 2);
  write_file(folder_ / "file", "");
  fs::create_directories(folder_ / "data/images");
  write_phantom("a");
  EXPECT_EQ(call(train(folder_ / "file")), 4) << log();
  EXPECT_NE(log().find("output folder"), std::string::npos) << log();
}

}  // namespace
}  // namespace espalier
