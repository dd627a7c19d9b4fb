// The recorded table of cuBLASLt's products: its text, what plans take from it, and that it knows every product that plans ask for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "op/contraction.h"
#include "run/program.h"
#include "support/errors.h"
#include "support/network_graphs.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/match/gemm.h"
#include "target/cuda/match/product_table.h"

namespace espalier::target::cuda {
namespace {

using ir::Dtype;
using testing::HasSubstr;

constexpr char sample[] =
    "espalier products 1\n"
    "capability 90\n"
    "device NVIDIA H200\n"
    "library 13.1.0\n"
    "bf16 bf16 f32 bias : 8 33554432, 3 0, none, assumed\n"
    "f32 f32 f32 : none, none, none, none\n";

GemmCall product(Dtype dtype) {
  GemmCall g;
  g.m = g.n = g.k = 8;
  g.workspace = 1000;
  g.a = g.b = g.d = {.dtype = dtype, .transposed = false, .ld = 8, .stride = 0};
  return g;
}

TEST(ProductTable, ReadsBackAndBadOnesAreNamed) {
  const ProductTable table = parse_product_table(sample, "table");
  EXPECT_EQ(text(table), sample);
  EXPECT_EQ(table.rows.at("bf16 bf16 f32 bias")[1],
            (ProductCell{.recorded = true, .algorithms = 3, .workspace = 0}));
  const auto problem = [&](const std::string& from, const std::string& to) {
    std::string changed = sample;
    changed.replace(changed.find(from), from.size(), to);
    return test::error_of([&] { parse_product_table(changed, "table"); });
  };
  EXPECT_THAT(problem("products 1", "products 2"), HasSubstr("table, line 1: is no table of products"));
  EXPECT_THAT(problem("capability 90", "capability x"), HasSubstr("line 2"));
  EXPECT_THAT(problem(", assumed\n", "\n"), HasSubstr("table, line 5: has a cell that is none"));
  EXPECT_THAT(problem("3 0", "0 0"), HasSubstr("has a cell that is none"));
  EXPECT_THAT(problem("f32 f32 f32 :", "bf16 bf16 f32 bias :"), HasSubstr("a second one of its kind"));
  EXPECT_THAT(problem("f32 bias :", "f32 bais :"),
              HasSubstr("table, line 5: is of a kind that no plan asks for"));
  EXPECT_THAT(problem("f32 f32 f32 :", "f32 f32 :"), HasSubstr("line 6: is of a kind that no plan asks for"));
  EXPECT_THAT(problem("none, none\n", "none, none"), HasSubstr("ends in the middle of a line"));
}

TEST(ProductTable, RecordedProductsAreTakenOrRefusedAndOthersAssumed) {
  const ProductTable table = parse_product_table(sample, "table");
  GemmCall g = product(Dtype::bf16);
  g.epilogue = GemmEpilogue::bias;
  const LibraryAnswer taken = recorded_answer(&table, g);
  EXPECT_EQ(taken.refusal, "");
  EXPECT_EQ(taken.workspace, 1000);
  EXPECT_FALSE(taken.assumed);
  g.b.transposed = true;
  EXPECT_EQ(recorded_answer(&table, g).refusal,
            "cublaslt 13.1.0 has no algorithm for bf16 bf16 f32 bias nt, as recorded on NVIDIA H200");
  g.a.transposed = true;
  EXPECT_TRUE(recorded_answer(&table, g).assumed);
  EXPECT_TRUE(recorded_answer(&table, product(Dtype::f16)).assumed);
  EXPECT_TRUE(recorded_answer(nullptr, product(Dtype::f32)).assumed);
  EXPECT_TRUE(recorded_answer(&table, ConvCall{}).assumed);
}

/// A product that the table refuses is declined where a plan is made.
TEST(ProductTable, APlanWithoutADeviceHeedsIt) {
  const ProductTable table = parse_product_table(sample, "table");
  const ir::Value x = ir::new_input("x", {Dtype::f32, {32, 32}}),
                  w = ir::new_input("w", {Dtype::f32, {32, 32}});
  ir::Graph g;
  g.inputs = {x, w};
  g.outputs = {{"y", op::dot(x, w, {.contract_a = {1}, .contract_b = {0}, .out = Dtype::f32})}};
  const std::vector<char> constant(2);
  const auto made = gemm_calls(g, {.constant = constant, .ask = [&](const CallRecord::Work& work) {
                                     return recorded_answer(&table, work);
                                   }});
  const auto* refusal = std::get_if<kernel::Refusal>(&made);
  ASSERT_NE(refusal, nullptr);
  EXPECT_THAT(refusal->reason, HasSubstr("as recorded on NVIDIA H200"));
}

/// The committed table has a row for every product of the networks, in every precision.
TEST(ProductTable, KnowsEveryProductOfNetworksHeavy) {
  const ProductTable* table = recorded_products(90);
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->rows.size(), product_kinds(64).size());
  for (const GemmCall& g : product_kinds(64))
    EXPECT_TRUE(table->rows.contains(product_kind(g))) << product_kind(g);
  EXPECT_EQ(recorded_products(80), nullptr);
  int seen = 0;
  for (const auto precision : {pass::Precision::f32, pass::Precision::bf16, pass::Precision::f16})
    for (const test::NetworkGraph& n :
         test::network_graphs(test::small_networks(), test::Optimisation::momentum)) {
      run::CompileOptions options;
      options.target = &cuda_target(90);
      options.precision = precision;
      const auto program = run::Program::compile(n.graph, options);
      for (const run::Step& s : program->steps())
        for (const CallRecord& c : s.kernel->calls())
          if (const auto* call = std::get_if<GemmCall>(&c.work)) {
            EXPECT_TRUE(table->rows.contains(product_kind(*call))) << product_kind(*call);
            ++seen;
          }
    }
  EXPECT_GT(seen, 10);
}

}  // namespace
}  // namespace espalier::target::cuda
