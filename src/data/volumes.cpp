#include "data/volumes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/text.h"
#include "data/loader.h"

namespace espalier::data {

using ir::Array;
using ir::Dtype;

namespace {

/// Background, mean and std of a volume; `where` names it in errors.
void measure(LabelledVolumes::Volume& v, const std::string& where) {
  const float* in = v.voxels.data<float>();
  const int64_t n = v.voxels.size();
  v.background = in[0];
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(in[i])) {
      const int64_t plane = v.height() * v.width();
      throw UserError({where,
                       fmt::format("voxel ({}, {}, {}) is not finite", i % v.width(),
                                   i / v.width() % v.height(), i / plane),
                       fmt::format("{}", in[i]), "finite values"});
    }
    v.background = std::min(v.background, in[i]);
  }
  double sum = 0, squares = 0;
  int64_t above = 0;
  for (int64_t i = 0; i < n; ++i)
    if (in[i] > v.background) sum += static_cast<double>(in[i]), ++above;
  if (above > 0) v.mean = sum / static_cast<double>(above);
  for (int64_t i = 0; i < n; ++i)
    if (in[i] > v.background)
      squares += (static_cast<double>(in[i]) - v.mean) * (static_cast<double>(in[i]) - v.mean);
  if (above > 0) v.std = std::sqrt(squares / static_cast<double>(above));
  if (above == 0)
    throw UserError({where, "all voxels have one value", fmt::format("{}", v.background), "a picture"});
  if (v.std <= 0) v.std = 1;  // a mask as image: two values
}

std::string range_text(SliceRange r) {
  return r.first == r.last ? std::to_string(r.first) : fmt::format("{}-{}", r.first, r.last);
}

int64_t slices(SliceRange r) { return r.last - r.first + 1; }

}  // namespace

LabelledVolumes::LabelledVolumes(std::vector<std::string> outputs) : outputs_(std::move(outputs)), sets_{0} {
  if (outputs_.empty() || outputs_.size() > most_outputs)
    throw UserError({"labelled volumes", "number of outputs", std::to_string(outputs_.size()),
                     fmt::format("1 to {}", most_outputs)});
}

void LabelledVolumes::add(std::string name, Array values, std::span<const uint64_t> outputs_of_voxel) {
  const std::string where = "volume " + quote(name);
  if (values.dtype() != Dtype::f32 || values.rank() != 3 || values.size() == 0)
    throw UserError({where, "is no volume", values.type().text(), "f32[depth,height,width]"});
  if (outputs_of_voxel.size() != static_cast<size_t>(values.size()))
    throw UserError({where, "has labels for another number of voxels",
                     std::to_string(outputs_of_voxel.size()), std::to_string(values.size())});
  Volume v;
  v.name = std::move(name);
  v.voxels = std::move(values);
  measure(v, where);

  std::unordered_map<uint64_t, uint16_t> code_of;
  for (size_t i = 0; i < sets_.size(); ++i) code_of.emplace(sets_[i], static_cast<uint16_t>(i));
  v.codes.resize(outputs_of_voxel.size());
  uint64_t last_set = 0;
  uint16_t last_code = 0;  // neighbours are mostly equal
  for (size_t i = 0; i < outputs_of_voxel.size(); ++i) {
    if (const uint64_t set = outputs_of_voxel[i]; set != last_set) {
      const auto [place, is_new] = code_of.try_emplace(set, static_cast<uint16_t>(sets_.size()));
      if (is_new && sets_.size() > 65535)
        throw UserError({where, "too many different sets of outputs", "over 65536", ""});
      if (is_new) sets_.push_back(set);
      last_set = set, last_code = place->second;
    }
    v.codes[i] = last_code;
    if (last_set == 0) continue;
    const auto z = static_cast<int64_t>(i) / (v.height() * v.width());
    if (v.labelled.last < 0) v.labelled.first = z;
    v.labelled.last = z;
  }
  volumes_.push_back(std::move(v));
}

std::vector<int64_t> LabelledVolumes::labelled() const {
  std::vector<int64_t> out;
  for (size_t i = 0; i < volumes_.size(); ++i)
    if (slices(volumes_[i].labelled) > 0) out.push_back(static_cast<int64_t>(i));
  return out;
}

bool LabelledVolumes::holds(int64_t volume, int64_t output, int64_t z, int64_t y, int64_t x) const {
  const Volume& v = volumes_.at(static_cast<size_t>(volume));
  const auto at = static_cast<size_t>((z * v.height() + y) * v.width() + x);
  return sets_[v.codes.at(at)] >> output & 1;
}

SliceSplit split_by_slabs(const LabelledVolumes& volumes, int64_t volume, std::span<const SliceRange> slabs,
                          int64_t guard) {
  const LabelledVolumes::Volume& v = volumes.volumes().at(static_cast<size_t>(volume));
  SliceSplit split;
  for (const SliceRange& s : slabs) {
    if (s.first < v.labelled.first || s.last > v.labelled.last || s.first > s.last)
      throw UserError({"split of volume " + quote(v.name), "slab lies outside the labelled slices",
                       range_text(s), range_text(v.labelled)});
    split.text += (split.text.empty() ? "held out: slices " : ", ") + range_text(s);
  }
  split.text += fmt::format(" of {}, {} slices beside each left out", v.name, guard);
  for (int64_t z = v.labelled.first; z <= v.labelled.last; ++z) {
    const auto inside = [&](int64_t margin) {
      return std::any_of(slabs.begin(), slabs.end(),
                         [&](const SliceRange& s) { return z >= s.first - margin && z <= s.last + margin; });
    };
    if (inside(0)) split.held_out.push_back({volume, z});
    else if (!inside(guard)) split.train.push_back({volume, z});
  }
  if (split.train.empty() || split.held_out.empty())
    throw UserError({"split of volume " + quote(v.name), "leaves no slice to train on or to hold out",
                     range_text(v.labelled), ""});
  return split;
}

SliceSplit split_by_even_slabs(const LabelledVolumes& volumes, int64_t volume, int64_t guard) {
  const LabelledVolumes::Volume& v = volumes.volumes().at(static_cast<size_t>(volume));
  const int64_t count = slices(v.labelled);
  if (count < 12)
    throw UserError(
        {"split of volume " + quote(v.name), "too few labelled slices", std::to_string(count), "12 or more"});
  const int64_t parts = count >= 12 * (1 + guard) ? 3 : 1,
                thick = std::max<int64_t>(1, count * 3 / (25 * parts));
  std::vector<SliceRange> slabs;
  for (int64_t i = 1; i <= parts; ++i) {
    const int64_t first = v.labelled.first + count * i / (parts + 1) - thick / 2;
    slabs.push_back({first, first + thick - 1});
  }
  return split_by_slabs(volumes, volume, slabs, guard);
}

SliceSplit split_by_volume(const LabelledVolumes& volumes, uint64_t seed) {
  const std::vector<int64_t> labelled = volumes.labelled();
  const auto n = static_cast<int64_t>(labelled.size());
  if (n < 2)
    throw UserError({"split by volume", "too few volumes with labels", std::to_string(n), "2 or more"});
  const int64_t held = std::max<int64_t>(1, n / 5);
  std::vector<int64_t> order = shuffled(n, seed, 0);
  std::sort(order.begin(), order.begin() + held);
  std::sort(order.begin() + held, order.end());
  SliceSplit split;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t index = labelled[static_cast<size_t>(order[static_cast<size_t>(i)])];
    const LabelledVolumes::Volume& v = volumes.volumes()[static_cast<size_t>(index)];
    if (i < held) split.text += (i == 0 ? "held out: " : ", ") + v.name;
    for (int64_t z = v.labelled.first; z <= v.labelled.last; ++z)
      (i < held ? split.held_out : split.train).push_back({index, z});
  }
  return split;
}

}  // namespace espalier::data
