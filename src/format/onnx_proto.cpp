#include "format/onnx_proto.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <set>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>

#include "base/file.h"
#include "base/text.h"
#include "format/onnx.h"

namespace espalier::format {

using ir::Array;
using ir::Dim;
using ir::dims_text;
using ir::Dtype;
using onnx::TensorProto;

namespace {

struct OnnxDtype {
  Dtype ours;
  int32_t onnx;
  bool in_int32_data;  ///< where elements stand when they are not raw
};
constexpr OnnxDtype onnx_dtypes[] = {
    {Dtype::f64, TensorProto::DOUBLE, false},   {Dtype::f32, TensorProto::FLOAT, false},
    {Dtype::bf16, TensorProto::BFLOAT16, true}, {Dtype::f16, TensorProto::FLOAT16, true},
    {Dtype::i64, TensorProto::INT64, false},    {Dtype::i32, TensorProto::INT32, true},
    {Dtype::i8, TensorProto::INT8, true},       {Dtype::u8, TensorProto::UINT8, true},
    {Dtype::boolean, TensorProto::BOOL, true},
};

/// The element types from number 17 on, which are younger than the protobuf schema may be; none of them is ours.
constexpr int32_t first_young_dtype = 17;
constexpr std::string_view young_dtypes[] = {"FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ",
                                             "UINT4",        "INT4",           "FLOAT4E2M1", "FLOAT8E8M0",
                                             "UINT2",        "INT2",           "FLOAT6E2M3", "FLOAT6E3M2"};

/// What ONNX calls an element type.
std::string onnx_dtype_name(int32_t dtype) {
  if (TensorProto::DataType_IsValid(dtype))
    return TensorProto::DataType_Name(static_cast<TensorProto::DataType>(dtype));
  const int64_t young = int64_t{dtype} - first_young_dtype;
  return young >= 0 && young < static_cast<int64_t>(std::size(young_dtypes))
             ? std::string(young_dtypes[young])
             : std::to_string(dtype);
}

[[noreturn]] void fail_proto(const std::string& where, std::string problem, std::string got = "",
                             std::string allowed = "") {
  throw UserError({where, std::move(problem), std::move(got), std::move(allowed)});
}

/// Dims as numbers whose product of bytes is held by what the file has (`available` elements).
int64_t checked_count(const std::vector<int64_t>& dims, const std::string& where) {
  int64_t n = 1;
  bool overflow = false;
  for (const int64_t d : dims) {
    if (d < 0) fail_proto(where, "a dim is negative", dims_text(dims), "dims >= 0");
    overflow |= __builtin_mul_overflow(n, d, &n);
  }
  if (overflow || n > (int64_t{1} << 40))
    fail_proto(where, "too many elements", dims_text(dims), "at most 2^40");
  return n;
}

/// Bytes as an array of `dims`: a bool byte must be 0 or 1.
Array from_raw(const void* data, size_t bytes, Dtype dtype, std::vector<int64_t> dims,
               const std::string& where) {
  const int64_t n = checked_count(dims, where);
  if (static_cast<size_t>(n * dtype_size(dtype)) != bytes)
    fail_proto(where, "the bytes do not fit the dims", fmt::format("{} bytes", bytes),
               fmt::format("{} bytes for {}{}", n * dtype_size(dtype), dtype_name(dtype), dims_text(dims)));
  Array out(dtype, std::move(dims));
  if (bytes > 0) std::memcpy(out.write(), data, bytes);
  if (dtype == Dtype::boolean)
    for (size_t i = 0; i < bytes; ++i)
      if (static_cast<const unsigned char*>(out.data())[i] > 1)
        fail_proto(where, "a bool is neither 0 nor 1");
  return out;
}

Array from_external(const TensorProto& t, Dtype dtype, std::vector<int64_t> dims,
                    const std::filesystem::path& folder, const std::string& where) {
  if (folder.empty())
    fail_proto(where, "the weights lie in another file", "", "a model that is loaded from its folder");
  std::string location;
  int64_t offset = 0, length = -1;
  const auto number = [&](const std::string& text) {
    const auto v = number_of<int64_t>(text);
    if (!v || *v < 0) fail_proto(where, "external data has a bad number", quote(text), "a decimal number");
    return *v;
  };
  for (const auto& entry : t.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = number(entry.value());
    if (entry.key() == "length") length = number(entry.value());
  }
  const std::filesystem::path relative = location;
  bool inside = !location.empty() && relative.is_relative();
  for (const auto& part : relative) inside = inside && part != "..";
  if (!inside)
    fail_proto(where, "external data lies outside the model's folder", quote(location),
               "a relative path below it");
  const auto file = MappedFile::open(folder / relative);
  const int64_t n = checked_count(dims, where), bytes = n * dtype_size(dtype);
  const auto size = static_cast<int64_t>(file->bytes().size());
  if ((length >= 0 && length != bytes) || offset > size || bytes > size - offset)
    fail_proto(where, "external data does not fit",
               fmt::format("offset {}, length {} in {} bytes", offset, length, size),
               fmt::format("{} bytes", bytes));
  const std::byte* data = file->bytes().data() + offset;
  if (dtype == Dtype::boolean ||
      reinterpret_cast<uintptr_t>(data) % static_cast<size_t>(dtype_size(dtype)) != 0)
    return from_raw(data, static_cast<size_t>(bytes), dtype, std::move(dims), where);
  return Array::borrow(dtype, std::move(dims), data, file);
}

template <class T, class List>
Array from_list(const List& list, std::vector<int64_t> dims, const std::string& where) {
  if (checked_count(dims, where) != list.size())
    fail_proto(where, "the number of elements does not fit the dims", std::to_string(list.size()),
               dims_text(dims));
  Array out(ir::dtype_of<T>(), std::move(dims));
  T* to = out.template write<T>();
  for (const auto v : list) *to++ = static_cast<T>(v);
  return out;
}

/// f16 and bf16 stand as their bits in int32_data.
Array from_bits(const TensorProto& t, Dtype dtype, std::vector<int64_t> dims, const std::string& where) {
  if (checked_count(dims, where) != t.int32_data_size())
    fail_proto(where, "the number of elements does not fit the dims", std::to_string(t.int32_data_size()),
               dims_text(dims));
  Array out(dtype, std::move(dims));
  auto* to = static_cast<uint16_t*>(out.write());
  for (const int32_t v : t.int32_data()) *to++ = static_cast<uint16_t>(v);
  return out;
}

}  // namespace

int32_t onnx_dtype(Dtype dtype) {
  for (const OnnxDtype& r : onnx_dtypes)
    if (r.ours == dtype) return r.onnx;
  throw InternalError("a dtype without an ONNX number");
}

Dtype dtype_of_onnx(int32_t dtype, const std::string& where) {
  std::string allowed;
  for (const OnnxDtype& r : onnx_dtypes) {
    if (r.onnx == dtype) return r.ours;
    allowed += (allowed.empty() ? "" : " ") + onnx_dtype_name(r.onnx);
  }
  fail_proto(where, "the element type is not supported", onnx_dtype_name(dtype), allowed);
}

Array array_of(const TensorProto& t, const std::filesystem::path& folder, const std::string& where) {
  const Dtype dtype = dtype_of_onnx(t.data_type(), where);
  std::vector<int64_t> dims(t.dims().begin(), t.dims().end());
  if (t.has_segment()) fail_proto(where, "the tensor is a segment", "", "a whole tensor");
  if (t.data_location() == TensorProto::EXTERNAL)
    return from_external(t, dtype, std::move(dims), folder, where);
  if (t.has_raw_data())
    return from_raw(t.raw_data().data(), t.raw_data().size(), dtype, std::move(dims), where);
  switch (dtype) {
    case Dtype::f64: return from_list<double>(t.double_data(), std::move(dims), where);
    case Dtype::f32: return from_list<float>(t.float_data(), std::move(dims), where);
    case Dtype::i64: return from_list<int64_t>(t.int64_data(), std::move(dims), where);
    case Dtype::i32: return from_list<int32_t>(t.int32_data(), std::move(dims), where);
    case Dtype::i8: return from_list<int8_t>(t.int32_data(), std::move(dims), where);
    case Dtype::u8: return from_list<uint8_t>(t.int32_data(), std::move(dims), where);
    case Dtype::boolean: return from_list<bool>(t.int32_data(), std::move(dims), where);
    case Dtype::f16:
    case Dtype::bf16: return from_bits(t, dtype, std::move(dims), where);
  }
  throw InternalError("a dtype without a reader");
}

TensorProto tensor_of(const Array& array, const std::string& name) {
  TensorProto t;
  t.set_name(name);
  t.set_data_type(onnx_dtype(array.dtype()));
  for (const int64_t d : array.dims()) t.add_dims(d);
  t.set_raw_data(array.data(), static_cast<size_t>(array.bytes()));
  return t;
}

/// A dim_param as a factor and a name: "batch", "4*batch".
static std::pair<int64_t, std::string> split_dim(const std::string& text) {
  int64_t factor = 1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), factor);
  if (error == std::errc() && factor > 0 && end != text.data() + text.size() && *end == '*')
    return {factor, text.substr(static_cast<size_t>(end - text.data()) + 1)};
  return {1, text};
}

static bool is_unknown(const std::string& name) { return name.empty() || name == "?"; }

/// Of an unnamed dim in the table; no dim_param has a 0 byte in front.
static std::string key_of(const onnx::ValueInfoProto& info, int axis) {
  return fmt::format("{}{}{}{}", '\0', axis, '\0', info.name());
}

/// '_' for every character (of UTF-8) that no symbol holds.
static std::string as_word(const std::string& name) {
  std::string word;
  for (const char c : name) {
    if ((static_cast<unsigned char>(c) & 0xC0) == 0x80) continue;  // the rest of a character
    const bool holds = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    word += holds ? c : '_';
  }
  if (word.empty() || (word[0] >= '0' && word[0] <= '9')) word.insert(0, "_");
  return word;
}

DimSymbols::DimSymbols(const onnx::GraphProto& graph) {
  std::set<std::string> taken;
  const auto each_dim = [&](const auto& visit) {
    for (const onnx::ValueInfoProto& info : graph.input())
      for (int axis = 0; axis < info.type().tensor_type().shape().dim_size(); ++axis) {
        const auto& d = info.type().tensor_type().shape().dim(axis);
        if (!d.has_dim_value() || d.dim_value() < 0) visit(info, axis, split_dim(d.dim_param()).second);
      }
  };
  each_dim([&](const auto&, int, const std::string& name) {  // names that may stay come first
    if (!is_unknown(name) && as_word(name) == name && taken.insert(name).second) symbols_[name] = name;
  });
  each_dim([&](const onnx::ValueInfoProto& info, int axis, const std::string& name) {
    const std::string key = is_unknown(name) ? key_of(info, axis) : name;
    if (symbols_.contains(key)) return;
    const std::string word =
        is_unknown(name) ? as_word(fmt::format("{}_{}", info.name(), axis)) : as_word(name);
    std::string symbol = word;
    for (int64_t i = 2; !taken.insert(symbol).second; ++i) symbol = fmt::format("{}_{}", word, i);
    symbols_[key] = symbol;
  });
}

Dim DimSymbols::of(const onnx::ValueInfoProto& info, int axis) const {
  const auto [factor, name] = split_dim(info.type().tensor_type().shape().dim(axis).dim_param());
  return Dim(factor) * Dim::symbol(symbols_.at(is_unknown(name) ? key_of(info, axis) : name));
}

ir::Type type_of(const onnx::ValueInfoProto& info, const DimSymbols& symbols, const std::string& where) {
  if (!info.has_type() || !info.type().has_tensor_type())
    fail_proto(where, "the input is no tensor", "", "a dense tensor");
  const auto& tensor = info.type().tensor_type();
  ir::Type type{dtype_of_onnx(tensor.elem_type(), where), {}};
  if (!tensor.has_shape()) fail_proto(where, "the input has no shape", "", "a shape of known rank");
  std::vector<int64_t> numbers;
  for (int axis = 0; axis < tensor.shape().dim_size(); ++axis) {
    const auto& d = tensor.shape().dim(axis);
    if (d.has_dim_value() && d.dim_value() >= 0) {
      type.dims.emplace_back(d.dim_value());
      numbers.push_back(d.dim_value());
    } else {
      type.dims.push_back(symbols.of(info, axis));
    }
  }
  checked_count(numbers, where);
  return type;
}

onnx::ValueInfoProto info_of(const ir::Type& type, const std::string& name) {
  onnx::ValueInfoProto info;
  info.set_name(name);
  auto* tensor = info.mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(onnx_dtype(type.dtype));
  tensor->mutable_shape();
  for (const Dim& d : type.dims) {
    if (d.is_static()) tensor->mutable_shape()->add_dim()->set_dim_value(d.value());
    else tensor->mutable_shape()->add_dim()->set_dim_param(d.text());
  }
  return info;
}

double widen(float value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  double out = value;
  if (error == std::errc()) std::from_chars(text, end, out);
  return out;
}

onnx::ModelProto parse_model(std::string_view bytes, const std::string& name) {
  const google::protobuf::LogSilencer quiet;
  if (bytes.size() > std::numeric_limits<int>::max())
    fail_proto(name, "the file is too large", bytes_text(static_cast<int64_t>(bytes.size())),
               "less than 2 GiB, weights beside it");
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  onnx::ModelProto model;
  if (!model.ParseFromCodedStream(&in) || !in.ConsumedEntireMessage())
    fail_proto(name, "the bytes are no ONNX model (protobuf)", "", "a complete ModelProto");
  if (!model.has_graph()) fail_proto(name, "the model has no graph", "", "a ModelProto with a graph");
  return model;
}

static std::string_view view_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

Array load_onnx_tensor(const std::filesystem::path& path) {
  const google::protobuf::LogSilencer quiet;
  const auto file = MappedFile::open(path);
  TensorProto t;
  if (file->bytes().size() > std::numeric_limits<int>::max() ||
      !t.ParseFromArray(file->bytes().data(), static_cast<int>(file->bytes().size())))
    fail_proto(path.string(), "the bytes are no ONNX tensor (protobuf)", "", "a complete TensorProto");
  return array_of(t, {}, path.string());
}

std::vector<std::string> onnx_input_names(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const onnx::ModelProto model = parse_model(view_of(*file), path.string());
  std::set<std::string> initialized;
  for (const auto& t : model.graph().initializer()) initialized.insert(t.name());
  std::vector<std::string> names;
  for (const auto& i : model.graph().input())
    if (!initialized.contains(i.name())) names.push_back(i.name());
  return names;
}

std::map<std::string, std::string> onnx_metadata(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  std::map<std::string, std::string> out;
  const onnx::ModelProto model = parse_model(view_of(*file), path.string());
  for (const auto& p : model.metadata_props()) out[p.key()] = p.value();
  return out;
}

void set_onnx_metadata(const std::filesystem::path& path,
                       const std::map<std::string, std::string>& metadata) {
  onnx::ModelProto model;
  {
    const auto file = MappedFile::open(path);
    model = parse_model(view_of(*file), path.string());
  }
  std::map<std::string, std::string> all;
  for (const auto& p : model.metadata_props()) all[p.key()] = p.value();
  for (const auto& [key, value] : metadata) all[key] = value;
  model.clear_metadata_props();
  for (const auto& [key, value] : all) {
    if (value.empty()) continue;
    auto* p = model.add_metadata_props();
    p->set_key(key);
    p->set_value(value);
  }
  write_file(path, model.SerializeAsString());
}

}  // namespace espalier::format
