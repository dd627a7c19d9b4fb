// Replays a fuzz target's corpus without a fuzzer: every file is one test, and the empty input is one more.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

class Replay : public testing::Test {
 public:
  explicit Replay(std::filesystem::path file) : file_(std::move(file)) {}
  void TestBody() override {
    std::vector<char> bytes;
    if (!file_.empty()) {
      std::ifstream in(file_, std::ios::binary);
      ASSERT_TRUE(in) << "cannot read " << file_;
      bytes.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }

 private:
  std::filesystem::path file_;
};

void add(const std::string& name, const std::filesystem::path& file) {
  testing::RegisterTest(ESPALIER_FUZZ_NAME, name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                        [file]() -> testing::Test* { return new Replay(file); });
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  add("empty", {});
  std::vector<std::filesystem::path> files;
  const std::filesystem::path corpus = argc > 1 ? argv[1] : "";
  if (std::filesystem::is_directory(corpus))
    for (const auto& entry : std::filesystem::directory_iterator(corpus))
      if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) add(file.filename().string(), file);
  return RUN_ALL_TESTS();
}
