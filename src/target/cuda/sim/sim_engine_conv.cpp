#include "target/cuda/sim/sim_engine_conv.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace espalier::target::cuda::sim {

using ir::Dtype;

namespace {

constexpr int64_t workspace_written = 1 << 16;

int64_t at(const std::array<int64_t, conv_spatial_most + 2>& v, int i) { return v[static_cast<size_t>(i)]; }

/// Elements of `t`, dense in the order of its dims.
int64_t count_of(const ConvTensor& t, int spatial) {
  int64_t n = 1;
  for (int i = 0; i < spatial + 2; ++i) n *= at(t.dims, i);
  return n;
}

/// Call f(dense index, index by strides) for every element.
template <class F>
void each_element(const ConvTensor& t, int spatial, F&& f) {
  std::array<int64_t, conv_spatial_most + 2> index{};
  const int64_t count = count_of(t, spatial);
  for (int64_t dense = 0, place = 0; dense < count; ++dense) {
    f(dense, place);
    for (int i = spatial + 2; i-- > 0;) {
      place += at(t.strides, i);
      if (++index[static_cast<size_t>(i)] < at(t.dims, i)) break;
      place -= at(t.dims, i) * at(t.strides, i);
      index[static_cast<size_t>(i)] = 0;
    }
  }
}

/// Half-precision types know only f32.
template <class To, class From>
To converted(From v) {
  if constexpr (std::is_arithmetic_v<To> && std::is_arithmetic_v<From>) return static_cast<To>(v);
  else return static_cast<To>(static_cast<float>(v));
}

/// The elements of a tensor as sums are made.
template <class Sum>
std::vector<Sum> read(const ConvTensor& t, int spatial, const void* data) {
  std::vector<Sum> out(static_cast<size_t>(count_of(t, spatial)));
  ir::dispatch(t.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    each_element(t, spatial, [&](int64_t dense, int64_t place) {
      out[static_cast<size_t>(dense)] = converted<Sum>(static_cast<const T*>(data)[place]);
    });
  });
  return out;
}

template <class Sum>
void write(const ConvTensor& t, int spatial, const std::vector<Sum>& values, void* data) {
  ir::dispatch(t.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    each_element(t, spatial, [&](int64_t dense, int64_t place) {
      static_cast<T*>(data)[place] = converted<T>(values[static_cast<size_t>(dense)]);
    });
  });
}

/// The points of y along one axis and the taps of the window that meet a point of x.
struct Meeting {
  int64_t x, k, y;
};
std::vector<Meeting> meetings(const ConvCall& c, int axis) {
  std::vector<Meeting> out;
  const auto i = static_cast<size_t>(axis);
  for (int64_t y = 0; y < c.y.dims[i + 2]; ++y)
    for (int64_t k = 0; k < c.w.dims[i + 2]; ++k) {
      const int64_t x = y * c.stride[i] - c.pad_low[i] + k * c.dilation[i];
      if (x >= 0 && x < c.x.dims[i + 2]) out.push_back({x, k, y});
    }
  return out;
}

/// Dense extents of the three tensors, spatial axes joined.
struct Shape {
  int64_t batch, channels, features, group_channels, group_features, x_points, w_points, y_points;
};

Shape shape_of(const ConvCall& c) {
  Shape s{.batch = c.x.dims[0],
          .channels = c.x.dims[1],
          .features = c.y.dims[1],
          .group_channels = c.w.dims[1],
          .group_features = c.w.dims[0] / c.groups,
          .x_points = 1,
          .w_points = 1,
          .y_points = 1};
  for (int i = 2; i < c.spatial + 2; ++i) {
    s.x_points *= at(c.x.dims, i);
    s.w_points *= at(c.w.dims, i);
    s.y_points *= at(c.y.dims, i);
  }
  return s;
}

/// Every pair of points that meet, with the tap between them.
std::vector<Meeting> all_meetings(const ConvCall& c) {
  std::vector<Meeting> all{{0, 0, 0}};
  for (int axis = 0; axis < c.spatial; ++axis) {
    const std::vector<Meeting> here = meetings(c, axis);
    std::vector<Meeting> longer;
    longer.reserve(all.size() * here.size());
    for (const Meeting& a : all)
      for (const Meeting& b : here)
        longer.push_back({a.x * at(c.x.dims, axis + 2) + b.x, a.k * at(c.w.dims, axis + 2) + b.k,
                          a.y * at(c.y.dims, axis + 2) + b.y});
    all = std::move(longer);
  }
  return all;
}

/// Add every product to the one of the three that is the result. Dense x [N, C, points], w [F, C/groups, points], y [N, F, points].
template <class Sum>
void accumulate(const ConvCall& c, std::vector<Sum>& x, std::vector<Sum>& w, std::vector<Sum>& y) {
  const Shape s = shape_of(c);
  const std::vector<Meeting> all = all_meetings(c);
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t f = 0; f < s.features; ++f)
      for (int64_t j = 0; j < s.group_channels; ++j) {
        const int64_t channel = f / s.group_features * s.group_channels + j;
        Sum* px = x.data() + (n * s.channels + channel) * s.x_points;
        Sum* pw = w.data() + (f * s.group_channels + j) * s.w_points;
        Sum* py = y.data() + (n * s.features + f) * s.y_points;
        switch (c.direction) {
          case ConvDirection::forward:
            for (const Meeting& m : all) py[m.y] += px[m.x] * pw[m.k];
            break;
          case ConvDirection::data_grad:
            for (const Meeting& m : all) px[m.x] += py[m.y] * pw[m.k];
            break;
          case ConvDirection::weight_grad:
            for (const Meeting& m : all) pw[m.k] += py[m.y] * px[m.x];
            break;
        }
      }
}

template <class Sum>
void apply(ConvStep step, std::vector<Sum>& values, const ConvCall& c, const void* operand) {
  const ConvTensor& result = conv_result(c);
  const auto count = static_cast<int64_t>(values.size());
  const int64_t points = count / (result.dims[0] * result.dims[1]);
  const auto each = [&](auto&& f) {
    for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = f(values[static_cast<size_t>(i)], i);
  };
  const auto* vector = static_cast<const Sum*>(operand);
  const auto channel = [&](int64_t i) { return i / points % result.dims[1]; };
  switch (step) {
    case ConvStep::add_channel: return each([&](Sum v, int64_t i) { return v + vector[channel(i)]; });
    case ConvStep::mul_channel: return each([&](Sum v, int64_t i) { return v * vector[channel(i)]; });
    case ConvStep::add_residual: {
      const std::vector<Sum> other = read<Sum>(result, c.spatial, operand);
      return each([&](Sum v, int64_t i) { return v + other[static_cast<size_t>(i)]; });
    }
    case ConvStep::relu: return each([](Sum v, int64_t) { return v < 0 ? Sum(0) : v; });  // NaN stays
    case ConvStep::sigmoid: return each([](Sum v, int64_t) { return 1 / (1 + std::exp(-v)); });
    case ConvStep::tanh: return each([](Sum v, int64_t) { return std::tanh(v); });
  }
}

template <class Sum>
void run_as(const ConvCall& c, std::span<const Extent> operands) {
  const auto begin = [&](const ConvTensor& t, int i) {
    return &t == &conv_result(c) ? std::vector<Sum>(static_cast<size_t>(count_of(t, c.spatial)))
                                 : read<Sum>(t, c.spatial, operands[static_cast<size_t>(i)].data);
  };
  std::vector<Sum> x = begin(c.x, 0), w = begin(c.w, 1), y = begin(c.y, 2);
  accumulate(c, x, w, y);
  std::vector<Sum>& result = c.direction == ConvDirection::forward     ? y
                             : c.direction == ConvDirection::data_grad ? x
                                                                       : w;
  if constexpr (!std::is_integral_v<Sum>)
    for (int i = 0, operand = conv_first_step_operand; i < c.step_count; ++i) {
      const ConvStep step = c.steps[static_cast<size_t>(i)];
      apply(step, result, c, takes_operand(step) ? operands[static_cast<size_t>(operand++)].data : nullptr);
    }
  const int place = c.direction == ConvDirection::forward     ? 2
                    : c.direction == ConvDirection::data_grad ? 0
                                                              : 1;
  write(conv_result(c), c.spatial, result, operands[static_cast<size_t>(place)].data);
}

void check_operands(const ConvCall& c, std::span<const Extent> operands) {
  const std::vector<int64_t> need = conv_operand_bytes(c);
  ESPALIER_CHECK(operands.size() == need.size(),
                 fmt::format("{}: {} operands, {} needed", text(c), operands.size(), need.size()));
  const size_t result = c.direction == ConvDirection::forward     ? 2
                        : c.direction == ConvDirection::data_grad ? 0
                                                                  : 1;
  const auto address = [&](size_t i) { return reinterpret_cast<uintptr_t>(operands[i].data); };
  for (size_t i = 0; i < need.size(); ++i) {
    ESPALIER_CHECK(address(i) % conv_alignment == 0,
                   fmt::format("{}: operand {} is not 16-byte aligned", text(c), i));
    ESPALIER_CHECK(operands[i].bytes >= need[i], fmt::format("{}: operand {} has {} bytes, {} needed",
                                                             text(c), i, operands[i].bytes, need[i]));
    const bool apart = address(i) + static_cast<uintptr_t>(need[i]) <= address(result) ||
                       address(result) + static_cast<uintptr_t>(need[result]) <= address(i);
    ESPALIER_CHECK(i == result || apart, fmt::format("{}: operand {} lies in the result", text(c), i));
  }
}

}  // namespace

void run_conv(const ConvCall& call, std::span<const Extent> operands) {
  if (const std::string wrong = conv_error(call); !wrong.empty())
    ESPALIER_CHECK(false, text(call) + ": " + wrong);
  check_operands(call, operands);
  if (call.workspace > 0)  // whatever an algorithm leaves there
    std::memset(operands.back().data, 0xFF, static_cast<size_t>(std::min(call.workspace, workspace_written)));
  switch (call.compute) {
    case Dtype::f64: return run_as<double>(call, operands);
    case Dtype::i32: return run_as<int64_t>(call, operands);  // what does not fit wraps
    default: return run_as<float>(call, operands);
  }
}

}  // namespace espalier::target::cuda::sim
