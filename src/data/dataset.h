#pragma once
// A dataset: numbered samples of fixed fields. fill() is called from several threads at once; everything else is free of
// state that changes.
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/rng.h"
#include "ir/array.h"

namespace espalier::data {

/// One part of a sample: its name, dtype and dims (static, without the batch).
struct Field {
  std::string name;
  ir::Type type;
};

struct NamedArray {
  std::string name;
  ir::Array value;
};
using Sample = std::vector<NamedArray>;

class ESPALIER_API Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  /// What every sample holds, in this order.
  virtual const std::vector<Field>& fields() const = 0;
  /// Write sample `index` (0 <= index < size()) into `out`: one array per field, of its type, holding anything before.
  /// The arrays may be places in a batch: write all of them and keep none. Everything random comes from `rng`.
  virtual void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const = 0;

  /// Sample `index` in arrays of its own; UserError for an index outside.
  Sample get(int64_t index, Rng& rng) const;
};

/// The rows of arrays that have equal first dims: sample i is row i of each. UserError when the first dims differ.
class ESPALIER_API ArrayDataset : public Dataset {
 public:
  explicit ArrayDataset(std::vector<NamedArray> arrays);
  int64_t size() const override { return size_; }
  const std::vector<Field>& fields() const override { return fields_; }
  void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const override;

 private:
  std::vector<NamedArray> arrays_;
  std::vector<Field> fields_;
  int64_t size_ = 0;
};

/// One field of FakeData: floats uniform in [low, high), integers and bools uniform in low..high.
struct FakeField {
  std::string name;
  ir::Type type;
  double low = 0, high = 1;
};

/// Random samples: element values depend on (seed, field, index) alone, so every epoch shows the same data.
/// UserError unless size >= 1.
class ESPALIER_API FakeData : public Dataset {
 public:
  FakeData(int64_t size, std::vector<FakeField> fields, uint64_t seed = 0);
  int64_t size() const override { return size_; }
  const std::vector<Field>& fields() const override { return types_; }
  void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const override;

 private:
  int64_t size_;
  std::vector<FakeField> fields_;
  std::vector<Field> types_;
  uint64_t seed_;
};

/// Some samples of another dataset, in the order given. UserError for an index outside.
class ESPALIER_API Subset : public Dataset {
 public:
  Subset(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices);
  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  const std::vector<Field>& fields() const override { return whole_->fields(); }
  void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const override;

 private:
  std::shared_ptr<const Dataset> whole_;
  std::vector<int64_t> indices_;
};

/// Samples of another dataset changed by a function (transforms.h), which must give equal names, dtypes and dims for every
/// sample (else UserError names the sample); the types are those it gives for sample 0. It runs in several threads.
class ESPALIER_API Mapped : public Dataset {
 public:
  using Change = std::function<Sample(Sample, Rng&)>;
  Mapped(std::shared_ptr<const Dataset> source, Change change);
  int64_t size() const override { return source_->size(); }
  const std::vector<Field>& fields() const override { return fields_; }
  void fill(int64_t index, Rng& rng, std::span<ir::Array> out) const override;

 private:
  std::shared_ptr<const Dataset> source_;
  Change change_;
  std::vector<Field> fields_;
};

}  // namespace espalier::data
