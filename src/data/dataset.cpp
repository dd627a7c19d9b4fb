#include "data/dataset.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/text.h"

namespace espalier::data {

using ir::Array;

namespace {

void copy(const Array& from, Array& to) {
  ESPALIER_CHECK(from.dtype() == to.dtype() && from.dims() == to.dims(),
                 "sample of " + from.type().text() + " for a place of " + to.type().text());
  if (from.bytes() > 0) std::memcpy(to.write(), from.data(), static_cast<size_t>(from.bytes()));
}

void check_index(int64_t index, int64_t size) {
  if (index < 0 || index >= size)
    throw UserError(
        {"dataset", "index is outside", std::to_string(index), fmt::format("0 <= index < {}", size)});
}

}  // namespace

Sample Dataset::get(int64_t index, Rng& rng) const {
  check_index(index, size());
  std::vector<Array> arrays;
  for (const Field& f : fields()) arrays.emplace_back(f.type.dtype, ir::static_dims(f.type.dims));
  fill(index, rng, arrays);
  Sample sample;
  for (size_t i = 0; i < arrays.size(); ++i) sample.push_back({fields()[i].name, std::move(arrays[i])});
  return sample;
}

ArrayDataset::ArrayDataset(std::vector<NamedArray> arrays) : arrays_(std::move(arrays)) {
  if (arrays_.empty()) throw UserError({"ArrayDataset", "holds no array", "", "one or more"});
  for (const NamedArray& a : arrays_) {
    const std::string where = "ArrayDataset, array " + quote(a.name);
    if (a.value.rank() < 1) throw UserError({where, "has no rows", a.value.type().text(), "one dim or more"});
    if (a.value.dims()[0] != arrays_[0].value.dims()[0])
      throw UserError({where, "number of rows differs from that of " + quote(arrays_[0].name),
                       std::to_string(a.value.dims()[0]), std::to_string(arrays_[0].value.dims()[0])});
    const std::vector<int64_t> row(a.value.dims().begin() + 1, a.value.dims().end());
    fields_.push_back({a.name, {a.value.dtype(), ir::to_dims(row)}});
  }
  size_ = arrays_[0].value.dims()[0];
}

void ArrayDataset::fill(int64_t index, Rng&, std::span<Array> out) const {
  for (size_t i = 0; i < arrays_.size(); ++i) {
    const int64_t bytes = out[i].bytes();
    if (bytes > 0)
      std::memcpy(out[i].write(), static_cast<const std::byte*>(arrays_[i].value.data()) + index * bytes,
                  static_cast<size_t>(bytes));
  }
}

FakeData::FakeData(int64_t size, std::vector<FakeField> fields, uint64_t seed)
    : size_(size), fields_(std::move(fields)), seed_(seed) {
  if (size < 1) throw UserError({"FakeData, size", "is out of range", std::to_string(size), "1 or more"});
  for (const FakeField& f : fields_) {
    const std::string where = "FakeData, field " + quote(f.name);
    if (!f.type.is_static()) throw UserError({where, "dims are not all numbers", f.type.text(), ""});
    if (!(f.low <= f.high))
      throw UserError({where, "range is empty", fmt::format("{}..{}", f.low, f.high), "low <= high"});
    types_.push_back({f.name, f.type});
  }
}

void FakeData::fill(int64_t index, Rng&, std::span<Array> out) const {
  for (size_t i = 0; i < fields_.size(); ++i) {
    const FakeField& field = fields_[i];
    Rng rng(seed_, i, static_cast<uint64_t>(index), Rng::Purpose::content);
    if (field.type.dtype == ir::Dtype::f32) {
      float* to = out[i].write<float>();
      const auto low = static_cast<float>(field.low), range = static_cast<float>(field.high - field.low);
      for (int64_t k = 0; k < out[i].size(); ++k) to[k] = low + range * rng.uniform();
      continue;
    }
    const bool whole = !ir::is_float(field.type.dtype);
    const auto count = static_cast<uint64_t>(std::floor(field.high) - std::floor(field.low)) + 1;
    for (int64_t k = 0; k < out[i].size(); ++k)
      out[i].set(k, whole ? std::floor(field.low) + static_cast<double>(rng.below(count))
                          : rng.uniform(field.low, field.high));
  }
}

Subset::Subset(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices)
    : whole_(std::move(whole)), indices_(std::move(indices)) {
  for (const int64_t i : indices_) check_index(i, whole_->size());
}

void Subset::fill(int64_t index, Rng& rng, std::span<Array> out) const {
  whole_->fill(indices_[static_cast<size_t>(index)], rng, out);
}

Mapped::Mapped(std::shared_ptr<const Dataset> source, Change change)
    : source_(std::move(source)), change_(std::move(change)) {
  if (source_->size() == 0) throw UserError({"Mapped", "the dataset holds no sample", "", ""});
  Rng rng(0, 0, 0);
  for (const NamedArray& a : change_(source_->get(0, rng), rng)) fields_.push_back({a.name, a.value.type()});
}

void Mapped::fill(int64_t index, Rng& rng, std::span<Array> out) const {
  const Sample sample = change_(source_->get(index, rng), rng);
  const auto fits = [&](size_t i) {
    return sample[i].name == fields_[i].name && sample[i].value.type() == fields_[i].type;
  };
  bool same = sample.size() == fields_.size();
  for (size_t i = 0; same && i < fields_.size(); ++i) same = fits(i);
  if (!same) {
    std::string got, allowed;
    for (const NamedArray& a : sample)
      got += fmt::format("{}{} {}", got.empty() ? "" : ", ", a.name, a.value.type().text());
    for (const Field& f : fields_)
      allowed += fmt::format("{}{} {}", allowed.empty() ? "" : ", ", f.name, f.type.text());
    throw UserError(
        {fmt::format("Mapped, sample {}", index), "differs from sample 0 after the change", got, allowed});
  }
  for (size_t i = 0; i < fields_.size(); ++i) copy(sample[i].value, out[i]);
}

}  // namespace espalier::data
