#pragma once
// Which matrix products a device's cuBLASLt has algorithms for, as it was recorded on a GPU (tools/gpu_check): planning without one asks this. What
// was not recorded is assumed.
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "target/device.h"

namespace espalier::target::cuda {

/// All of a product but its sizes and how its operands lie: dtypes of A and D, what it is computed in, whether there is a C and a batch, the
/// epilogue: "bf16 f32 f32 beta gelu_bias".
std::string product_kind(const GemmCall& call);
/// How operands lie: 0 both as they are multiplied, +1 A transposed, +2 B transposed.
size_t product_layout(const GemmCall& call);
inline constexpr std::array<std::string_view, 4> product_layouts{"nn", "tn", "nt", "tt"};

/// One square product of every kind that plans ask for, operands as they are multiplied.
std::vector<GemmCall> product_kinds(int64_t n);

struct ProductCell {
  bool recorded = false;   ///< else assumed
  int64_t algorithms = 0;  ///< that the heuristic knows, at most as many as were asked for; 0: none
  int64_t workspace = 0;   ///< bytes, the most that a first one took
  bool operator==(const ProductCell&) const = default;
};

struct ProductTable {
  int capability = 0;
  std::string device, library;  ///< "NVIDIA H200", "13.1.0"; "none" where nothing was recorded
  std::map<std::string, std::array<ProductCell, 4>> rows;  ///< by kind, then layout
  bool operator==(const ProductTable&) const = default;
};

/// A line for each matter:
///     espalier products 1
///     capability 90
///     device NVIDIA H200
///     library 13.1.0
///     bf16 bf16 f32 gelu_bias : 8 33554432, none, assumed, assumed
/// with a cell for each of product_layouts: algorithms and workspace, none, or assumed.
std::string text(const ProductTable& table);
/// UserError where it is no such text, with the line; `source` says in it where the text is from.
ProductTable parse_product_table(std::string_view text, std::string_view source);

/// The table of this repository for that architecture (match/products_sm90.txt and the like); null where there is none.
const ProductTable* recorded_products(int capability);

/// What plans without a device take for the library's answer. A product that was recorded without an algorithm is refused; one with has all
/// the workspace that it may take, as sizes differ. Everything else, and every convolution, is assumed.
LibraryAnswer recorded_answer(const ProductTable* table, const CallRecord::Work& work);

}  // namespace espalier::target::cuda
