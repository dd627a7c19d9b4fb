#pragma once
// Labelled pictures in IDX files: MNIST and its kin.
#include <filesystem>

#include "data/dataset.h"

namespace espalier::data {

/// u8 pictures [n, height, width] and u8 labels [n] below `classes`, as fields "image", f32 [height, width, 1] in 0..1, and
/// "label", i32 []. UserError (file, what came, what is allowed) where the two files do not fit each other.
class ESPALIER_API IdxImages : public Dataset {
 public:
  IdxImages(const std::filesystem::path& images, const std::filesystem::path& labels, int classes);
  int64_t size() const override { return labels_.size(); }
  const std::vector<Field>& fields() const override { return fields_; }
  void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const override;
  int label(int64_t index) const { return labels_.data<uint8_t>()[index]; }

 private:
  ir::Array images_, labels_;
  std::vector<Field> fields_;
};

enum class Part { train, test };

/// Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 and 10,000 pictures of 28 x 28 in 10 classes, from the files of Debian's
/// dataset-fashion-mnist, plain or .gz. UserError says what to install where `folder` lacks them.
class ESPALIER_API FashionMnist : public IdxImages {
 public:
  explicit FashionMnist(Part part, const std::filesystem::path& folder = "/usr/share/datasets/fashion-mnist");
  /// "T-shirt", "trouser", ...
  static std::span<const std::string_view> class_names();
};

}  // namespace espalier::data
