#include <gtest/gtest.h>
#include <sys/stat.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "base/object_cache.h"
#include "support/folder.h"
#include "target/cpu/cpu_features.h"
#include "target/cpu/jit/compile_ir.h"
#include "target/cpu/jit/elf_loader.h"
#include "target/cpu/jit/math_symbols.h"

namespace espalier::target::cpu {
namespace {

std::string sample_ir(const std::string& body) {
  return module_header() + body + "\nattributes #0 = { nounwind " + target_attributes(cpu_features()) +
         " }\n";
}

std::span<const std::byte> bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

/// y[i] = sin(x[i]) + a constant of the object's own data, through a call, for 8 elements.
const std::string& sample_object() {
  static const std::string object = compile_ir(sample_ir(R"(
declare float @esp_f32_sin(float)
@table = internal constant [8 x float] [float 1.0, float 2.0, float 3.0, float 4.0, float 5.0, float 6.0, float 7.0, float 8.0]
define void @kernel(ptr %y, ptr %x) #0 {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %n, %loop ]
  %px = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %px
  %s = call float @esp_f32_sin(float %v) #0
  %pt = getelementptr float, ptr @table, i64 %i
  %t = load float, ptr %pt
  %r = fadd float %s, %t
  %py = getelementptr float, ptr %y, i64 %i
  store float %r, ptr %py
  %n = add i64 %i, 1
  %c = icmp slt i64 %n, 8
  br i1 %c, label %loop, label %done
done:
  ret void
}
)"),
                                               cpu_features());
  return object;
}

void expect_sample_runs(const LoadedObject& loaded) {
  const auto fn =
      reinterpret_cast<void (*)(float*, const float*)>(const_cast<void*>(loaded.symbol("kernel")));
  ASSERT_NE(fn, nullptr);
  float x[8], y[8];
  for (int i = 0; i < 8; ++i) x[i] = 0.3f * static_cast<float>(i);
  fn(y, x);
  for (int i = 0; i < 8; ++i) EXPECT_FLOAT_EQ(y[i], std::sin(x[i]) + static_cast<float>(i + 1));
}

TEST(Jit, compiles_loads_and_runs) {
  const LoadedObject loaded = LoadedObject::load(bytes(sample_object()), kernel_symbols());
  EXPECT_EQ(loaded.symbol("absent"), nullptr);
  expect_sample_runs(loaded);
}

TEST(Jit, moved_object_keeps_its_code) {
  LoadedObject a = LoadedObject::load(bytes(sample_object()), kernel_symbols());
  const LoadedObject b = std::move(a);
  expect_sample_runs(b);
}

TEST(Jit, broken_ir_is_an_internal_error) {
  EXPECT_THROW(compile_ir(sample_ir("define void @f() { ret i32 }"), cpu_features()), InternalError);
}

TEST(CpuFeatures, masks_down_and_refuses_unknown_levels) {
  const CpuFeatures host = detect_cpu();
  const CpuFeatures low = masked(host, "avx2");
  EXPECT_EQ(low.lanes(), 8);
  EXPECT_FALSE(low.avx512 || low.avx512_bf16 || low.amx_tile);
  EXPECT_EQ(masked(host, "native"), host);
  EXPECT_THROW(masked(host, "sse9"), UserError);
  EXPECT_THROW(masked(CpuFeatures{}, "avx2"), UserError);
}

TEST(ElfLoader, refuses_what_is_not_an_object) {
  for (const std::string& s : {std::string(), std::string("ELF"), std::string(64, '\0'),
                               std::string("\x7f"
                                           "ELF")})
    EXPECT_THROW(LoadedObject::load(bytes(s), kernel_symbols()), UserError);
}

TEST(ElfLoader, refuses_every_truncation) {
  const std::string& whole = sample_object();
  for (size_t n = 0; n < whole.size(); n += 7) {
    const std::string part = whole.substr(0, n);
    EXPECT_THROW(LoadedObject::load(bytes(part), kernel_symbols()), UserError) << n;
  }
}

TEST(ElfLoader, refuses_symbols_outside_the_list) {
  try {
    LoadedObject::load(bytes(sample_object()), {});
    FAIL();
  } catch (const UserError& e) {
    EXPECT_EQ(e.fields().got, "esp_f32_sin");
  }
}

TEST(ElfLoader, survives_random_damage) {
  std::mt19937 rng(5);
  for (int k = 0; k < 3000; ++k) {
    std::string damaged = sample_object();
    for (int n = 0; n < 3; ++n) damaged[rng() % damaged.size()] = static_cast<char>(rng());
    try {
      LoadedObject::load(bytes(damaged), kernel_symbols());
    } catch (const UserError&) {
    }
  }
}

class ObjectCacheTest : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  std::filesystem::path dir_ = folder_ / "cache";
};

TEST_F(ObjectCacheTest, gives_back_what_was_stored) {
  ObjectCache cache(dir_);
  EXPECT_FALSE(cache.find("key"));
  cache.store("key", std::string("object\0bytes", 12));
  EXPECT_EQ(cache.find("key"), std::string("object\0bytes", 12));
  EXPECT_FALSE(cache.find("other"));
  EXPECT_EQ(ObjectCache(dir_).find("key")->size(), 12u);
  EXPECT_EQ(cache.counts().hits, 1);
  EXPECT_EQ(cache.counts().misses, 2);
  struct stat st {};
  ASSERT_EQ(stat(dir_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
}

TEST_F(ObjectCacheTest, damage_is_counted_and_repaired) {
  ObjectCache cache(dir_);
  cache.store("key", "object");
  const std::string whole = read_file(cache.path_of("key"));
  for (size_t i = 0; i < whole.size(); i += 3) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    write_file(cache.path_of("key"), damaged);
    EXPECT_FALSE(cache.find("key")) << i;
    write_file(cache.path_of("key"), whole.substr(0, i));
    EXPECT_FALSE(cache.find("key")) << i;
  }
  EXPECT_EQ(cache.counts().corrupt, 2 * static_cast<int64_t>((whole.size() + 2) / 3));
  cache.store("key", "object");
  EXPECT_EQ(cache.find("key"), "object");
}

TEST_F(ObjectCacheTest, refuses_a_directory_open_to_others) {
  std::filesystem::create_directory(dir_);
  ASSERT_EQ(chmod(dir_.c_str(), 0755), 0);
  ObjectCache cache(dir_);
  EXPECT_FALSE(cache.is_on());
  EXPECT_NE(cache.refusal().find("open to other users"), std::string::npos);
  cache.store("key", "object");
  EXPECT_FALSE(cache.find("key"));
}

TEST_F(ObjectCacheTest, a_failed_write_is_counted) {
  ObjectCache cache(dir_);
  std::filesystem::remove_all(dir_);
  cache.store("key", "object");
  EXPECT_EQ(cache.counts().failed, 1);
  EXPECT_FALSE(cache.find("key"));
}

}  // namespace
}  // namespace espalier::target::cpu
