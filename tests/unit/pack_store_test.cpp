#include "target/pack_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace espalier::target {
namespace {

using ir::Array;

std::shared_ptr<const Packed> pack(const Array& a, std::string_view key, std::atomic<int>& fills) {
  return packed(a, key, a.bytes(), [&](void* to) {
    ++fills;
    std::memcpy(to, a.data(), static_cast<size_t>(a.bytes()));
  });
}

TEST(PackStore, EqualConstantsInOneLayoutShareOnePacking) {
  const int64_t before = live_packings();
  std::atomic<int> fills = 0;
  const auto one = pack(Array::of<float>({2}, {1, 2}), "rows", fills);
  EXPECT_EQ(pack(Array::of<float>({2}, {1, 2}), "rows", fills), one);
  EXPECT_NE(pack(Array::of<float>({2}, {1, 2}), "columns", fills), one);
  EXPECT_NE(pack(Array::of<float>({2}, {1, 3}), "rows", fills), one);
  EXPECT_NE(pack(Array::of<float>({1, 2}, {1, 2}), "rows", fills), one);
  EXPECT_EQ(fills, 4);
  EXPECT_EQ(live_packings(), before + 1) << "only the one that is held";
  EXPECT_EQ(static_cast<const float*>(one->data())[1], 2);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(one->data()) % 64, 0u);
}

TEST(PackStoreThreads, OnePackingForAllWhoAskAtOnce) {
  std::atomic<int> fills = 0;
  const Array a = Array::full(ir::Dtype::f32, {1000}, 3);
  std::vector<std::shared_ptr<const Packed>> got(4);
  std::vector<std::thread> users;
  for (auto& g : got) users.emplace_back([&] { g = pack(a, "threads", fills); });
  for (std::thread& t : users) t.join();
  EXPECT_EQ(fills, 1);
  for (const auto& g : got) EXPECT_EQ(g, got[0]);
}

}  // namespace
}  // namespace espalier::target
