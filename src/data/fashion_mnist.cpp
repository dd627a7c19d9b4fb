#include "data/fashion_mnist.h"

#include <fmt/format.h>

#include <array>

#include "data/idx.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;

namespace {

std::filesystem::path file_of(const std::filesystem::path& folder, Part part, const char* kind) {
  const std::string name = fmt::format("{}-{}-ubyte", part == Part::train ? "train" : "t10k", kind);
  for (const std::string& candidate : {name, name + ".gz"})
    if (std::filesystem::exists(folder / candidate)) return folder / candidate;
  throw UserError({"Fashion-MNIST, folder " + folder.string(),
                   "file is missing (Debian: apt install dataset-fashion-mnist)", "",
                   name + " or " + name + ".gz"});
}

}  // namespace

IdxImages::IdxImages(const std::filesystem::path& images, const std::filesystem::path& labels, int classes)
    : images_(load_idx(images)), labels_(load_idx(labels)) {
  if (images_.dtype() != Dtype::u8 || images_.rank() != 3)
    throw UserError(
        {"IDX file " + images.string(), "holds no pictures", images_.type().text(), "u8[n,height,width]"});
  if (labels_.dtype() != Dtype::u8 || labels_.rank() != 1 || labels_.size() != images_.dims()[0])
    throw UserError({"IDX file " + labels.string(), "does not label the pictures", labels_.type().text(),
                     fmt::format("u8[{}]", images_.dims()[0])});
  for (int64_t i = 0; i < labels_.size(); ++i)
    if (label(i) >= classes)
      throw UserError({fmt::format("IDX file {}, element {}", labels.string(), i), "label is out of range",
                       std::to_string(label(i)), fmt::format("0 to {}", classes - 1)});
  fields_ = {{"image", {Dtype::f32, {images_.dims()[1], images_.dims()[2], 1}}}, {"label", {Dtype::i32, {}}}};
}

void IdxImages::fill(int64_t index, Rng&, std::span<Array> out) const {
  float* to = out[0].write<float>();
  const int64_t pixels = out[0].size();
  const uint8_t* from = images_.data<uint8_t>() + index * pixels;
  for (int64_t i = 0; i < pixels; ++i) to[i] = static_cast<float>(from[i]) * (1.0f / 255.0f);
  *out[1].write<int32_t>() = label(index);
}

FashionMnist::FashionMnist(Part part, const std::filesystem::path& folder)
    : IdxImages(file_of(folder, part, "images-idx3"), file_of(folder, part, "labels-idx1"), 10) {}

std::span<const std::string_view> FashionMnist::class_names() {
  static constexpr std::array<std::string_view, 10> names{
      "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"};
  return names;
}

}  // namespace espalier::data
