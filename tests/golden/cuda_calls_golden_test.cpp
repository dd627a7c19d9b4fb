// The records of some steps as text: tests/golden/cuda_calls/*.txt (see tests/golden/README.md).
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "kernel/fused.h"
#include "support/golden.h"
#include "target/cuda/cuda_target.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;

const fs::path folder = fs::path(ESPALIER_SOURCE_DIR) / "tests/golden/cuda_calls";
constexpr std::string_view mark = "==== calls\n";

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

class CudaCallsGolden : public testing::TestWithParam<std::string> {};

TEST_P(CudaCallsGolden, TextIsAsItWas) {
  const fs::path file = folder / (GetParam() + ".txt");
  const std::string all = read_file(file);
  const size_t at = all.find(mark);
  const std::string head = all.substr(0, at),
                    want = at == std::string::npos ? "" : all.substr(at + mark.size());
  const auto body = std::make_shared<const ir::Graph>(ir::parse(head.substr(head.find("graph "))));
  const auto step = kernel::fusion(kernel::FusionKind::contraction, body, body->inputs);
  std::vector<ir::Array> arrays;  // everything is frozen
  for (const ir::Value& v : body->inputs) arrays.emplace_back(v.dtype(), ir::static_dims(v.dims()));
  std::vector<const ir::Array*> constants;
  for (const ir::Array& a : arrays) constants.push_back(&a);
  const target::Prepared prepared = target::cuda::cuda_target(90).prepare(step[0].node(), constants, {});
  std::string got;
  for (const kernel::Refusal& r : prepared.refusals) got += fmt::format("{} declines: {}\n", r.by, r.reason);
  if (prepared.kernel) {
    for (const target::CallRecord& call : prepared.kernel->calls())
      got += fmt::format("{}; {} bytes, {} flops\n", target::text(call), call.cost.bytes, call.cost.flops);
    got += fmt::format("scratch {}\n", prepared.kernel->scratch_bytes());
    for (const target::InPlace& p : prepared.kernel->in_place())
      got += fmt::format("result {} may lie in operand {}\n", p.result, p.operand);
  }
  if (updates_golden()) write_file(file, head + std::string(mark) + got);
  else EXPECT_TRUE(golden(want, got, file));
}

INSTANTIATE_TEST_SUITE_P(Steps, CudaCallsGolden, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace espalier::test
