// The kernels of some bodies as text: tests/golden/cuda_kernels/*.txt (see tests/golden/README.md).
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "kernel/lower.h"
#include "support/golden.h"
#include "target/cuda/emit/kernel.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;

const fs::path folder = fs::path(ESPALIER_SOURCE_DIR) / "tests/golden/cuda_kernels";
constexpr std::string_view mark = "==== kernels\n";

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string text_of(const target::cuda::Emitted& k) {
  std::string operands;
  for (const int b : k.operands) operands += fmt::format(" b{}", b);
  return fmt::format("launch {} blocks of {} over{}: {} bytes, {} operations\n{}", k.call.grid.count(),
                     k.call.block.count(), operands, k.bytes, k.operations, k.source.text);
}

class CudaKernelGolden : public testing::TestWithParam<std::string> {};

TEST_P(CudaKernelGolden, TextIsAsItWas) {
  const fs::path file = folder / (GetParam() + ".txt");
  const std::string all = read_file(file);
  const size_t at = all.find(mark);
  const std::string head = all.substr(0, at),
                    want = at == std::string::npos ? "" : all.substr(at + mark.size());
  const ir::Graph body = ir::parse(head.substr(head.find("graph ")));
  const auto lowered = kernel::lower(body, target::cuda::lower_options);
  ASSERT_TRUE(std::holds_alternative<kernel::Lowered>(lowered)) << std::get<kernel::Refusal>(lowered).reason;
  const auto emitted = target::cuda::emit(std::get<kernel::Lowered>(lowered));
  std::string got;
  for (const target::cuda::Emitted& k : std::get<0>(emitted)) got += text_of(k);
  if (updates_golden()) write_file(file, head + std::string(mark) + got);
  else EXPECT_TRUE(golden(want, got, file));
}

INSTANTIATE_TEST_SUITE_P(Bodies, CudaKernelGolden, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace espalier::test
