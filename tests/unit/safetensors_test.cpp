#include "format/safetensors.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "support/errors.h"
#include "support/folder.h"

namespace espalier::format {
namespace {

using ir::Array;
using ir::Dtype;

class Safetensors : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "tensors";

  static std::string file(std::string_view header, std::string_view data = "") {
    std::string out;
    for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xff);
    return out.append(header).append(data);
  }
  static std::string refusal(const std::string& bytes) {
    return test::error_of(
        [&] { parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), nullptr, "x"); });
  }
  static std::string one(std::string_view fields, std::string_view data) {
    return file("{\"w\":{" + std::string(fields) + "}}", data);
  }
};

TEST_F(Safetensors, ComesBackWithNamesDtypesAndMetadata) {
  TensorFile in;
  in.metadata = {{"step", "12"}, {"note", "caf\xc3\xa9 \"quoted\""}};
  for (int d = 0; d < ir::dtype_count; ++d) {
    Array a(static_cast<Dtype>(d), {3, 1});
    for (int64_t i = 0; i < 3; ++i) a.set(i, static_cast<double>(i));
    in.tensors.push_back({"layer." + std::to_string(d), a});
  }
  in.tensors.push_back({"empty", Array(Dtype::f32, {0, 4})});
  in.tensors.push_back({"scalar", Array::scalar(Dtype::i64, -7)});
  save_safetensors(path_, in);
  const TensorFile out = load_safetensors(path_);
  EXPECT_EQ(out.metadata, in.metadata);
  ASSERT_EQ(out.tensors.size(), in.tensors.size());
  for (const NamedTensor& t : in.tensors) {
    EXPECT_EQ(out.at(t.name), t.value) << t.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(out.at(t.name).data()) %
                  static_cast<uintptr_t>(ir::dtype_size(t.value.dtype())),
              0u);
  }
  EXPECT_EQ(out.find("none"), nullptr);
  EXPECT_THROW(out.at("none"), UserError);
  const std::string first = read_file(path_);
  std::reverse(in.tensors.begin(), in.tensors.end());
  save_safetensors(path_, in);
  EXPECT_EQ(read_file(path_), first) << "equal contents give equal bytes";
}

TEST_F(Safetensors, NothingIsCopiedAndTheMapStaysAlive) {
  save_safetensors(path_, {{{"a", Array::of<float>({2}, {1, 2})}, {"b", Array::of<float>({1}, {3})}}, {}});
  Array a, b;
  {
    const TensorFile f = load_safetensors(path_);
    a = f.at("a"), b = f.at("b");
  }
  EXPECT_EQ(static_cast<const char*>(b.data()) - static_cast<const char*>(a.data()), 8);
  EXPECT_EQ(a, (Array::of<float>({2}, {1, 2})));
}

TEST_F(Safetensors, NoFileIsLeftByAWriteThatFails) {
  EXPECT_THROW(save_safetensors(path_, {{{"a", Array()}, {"a", Array()}}, {}}), UserError);
  EXPECT_THROW(save_safetensors(path_, {{{"__metadata__", Array()}}, {}}), UserError);
  EXPECT_THROW(save_safetensors(path_, {{{"\xff\xfe", Array()}}, {}}), UserError);
  EXPECT_THROW(save_safetensors("/nowhere/x", {}), UserError);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(Safetensors, RefusesWithTensorAndFieldNamed) {
  const std::string ok = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  EXPECT_EQ(refusal(one(ok, "abcd")), "no error");
  const auto says = [&](const std::string& bytes, std::string_view text) {
    const std::string why = refusal(bytes);
    EXPECT_NE(why.find(text), std::string::npos) << why;
  };
  says("abc", "is no safetensors file");
  says(file("{}") + "x", "more bytes than the tensors take");
  says(std::string(8, '\xff') + "{}", "header length: is larger than the file");
  says(file("{"), "header: is no JSON");
  says(file("[]"), "is no JSON object");
  says(file(R"({"a":[[[[[[1]]]]]]})"), "nested too deeply");
  says(file(R"({"w":{)" + ok + R"(},"w":{)" + ok + "}}", "abcd"), "name stands twice (got \"w\")");
  says(one(ok, "abc"), "tensor \"w\", data_offsets: lie outside the data");
  says(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", "abcd"),
       "do not fit dtype and shape (got 4 bytes; allowed: 8 bytes)");
  says(one(R"("dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4])", "abcd"),
       "dtype: is not supported (got \"F8_E4M3\"");
  says(one(R"("dtype":3,"shape":[4],"data_offsets":[0,4])", "abcd"), "dtype: is not supported (got 3");
  says(one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", "abcd"),
       "shape: is no whole number >= 0 (got -1)");
  says(one(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])", "abcd"), "is no whole number");
  says(one(R"("dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,4])", "abcd"),
       "shape: is too large");
  says(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])", "abcd"), "lie outside the data");
  says(one(R"("dtype":"F32","shape":[1],"data_offsets":[4])", "abcd"), "is no pair of numbers");
  says(one(R"("dtype":"F32","shape":[1])", "abcd"), "field is missing (allowed: data_offsets)");
  says(one(ok + R"(,"extra":1)", "abcd"), "unknown field (got \"extra\"");
  says(one(R"("dtype":"BOOL","shape":[4],"data_offsets":[0,4])", "abcd"), "element 0: is no bool");
  says(file(R"({"__metadata__":{"a":1}})"), "__metadata__, \"a\": is no text");
  says(
      file(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          "abc"),
      "tensor \"b\", data_offsets: overlap those of \"a\"");
  says(
      file(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
          "abc"),
      "leave bytes that belong to no tensor");
  EXPECT_THROW(load_safetensors("/nowhere/x"), UserError);
}

TEST_F(Safetensors, UnalignedTensorsAreCopied) {
  const std::string bytes = file(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
      std::string("\1\0\0\x80\x3f", 5));
  const TensorFile f = parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), nullptr, "x");
  EXPECT_EQ(f.at("b").data<float>()[0], 1.0f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(f.at("b").data()) % 4, 0u);
}

}  // namespace
}  // namespace espalier::format
