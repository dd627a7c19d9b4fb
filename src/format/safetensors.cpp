#include "format/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "base/file.h"
#include "base/text.h"

namespace espalier::format {

using ir::Array;
using ir::Dtype;
using Json = nlohmann::json;

namespace {

constexpr uint64_t max_header = 100'000'000;  // as the format's own reader allows
constexpr size_t most_dims = 64;
constexpr int max_depth = 3;  // header, tensor, list
constexpr const char* metadata_key = "__metadata__";

struct SafetensorsDtype {
  Dtype dtype;
  const char* name;
};
constexpr SafetensorsDtype safetensors_dtypes[] = {
    {Dtype::f64, "F64"}, {Dtype::f32, "F32"}, {Dtype::bf16, "BF16"},
    {Dtype::f16, "F16"}, {Dtype::i64, "I64"}, {Dtype::i32, "I32"},
    {Dtype::i8, "I8"},   {Dtype::u8, "U8"},   {Dtype::boolean, "BOOL"},
};

/// One file being read: where errors are, and the bytes.
struct Source {
  const std::string& name;
  std::span<const std::byte> data;

  [[noreturn]] void fail(const std::string& place, std::string problem, std::string got = "",
                         std::string allowed = "") const {
    throw UserError({"safetensors " + name + (place.empty() ? "" : ", " + place), std::move(problem),
                     std::move(got), std::move(allowed)});
  }
};

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

/// The header as JSON: no key twice in an object, no deep nesting.
Json parse_header(const Source& source, std::string_view text) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (depth > max_depth)
      source.fail("header", "is nested too deeply", "", fmt::format("{} levels", max_depth));
    if (event == Event::object_start) keys.emplace_back();
    else if (event == Event::object_end) keys.pop_back();
    else if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
      source.fail("header", "name stands twice", shown(value));
    return true;
  };
  try {
    Json json = Json::parse(text, check);
    if (!json.is_object()) source.fail("header", "is no JSON object", shown(json));
    return json;
  } catch (const Json::exception& e) {
    source.fail("header", "is no JSON", e.what());
  }
}

uint64_t read_number(const Source& source, const std::string& place, const Json& value) {
  if (!value.is_number_unsigned()) source.fail(place, "is no whole number >= 0", shown(value));
  return value.get<uint64_t>();
}

struct Entry {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> dims;
  uint64_t begin = 0, end = 0;
};

Entry read_entry(const Source& source, const std::string& name, const Json& json) {
  const std::string place = "tensor " + quote(name);
  if (!json.is_object()) source.fail(place, "is no object", shown(json), "dtype, shape, data_offsets");
  for (const auto& [key, value] : json.items())
    if (key != "dtype" && key != "shape" && key != "data_offsets")
      source.fail(place, "unknown field", quote(key), "dtype, shape, data_offsets");
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!json.contains(key)) source.fail(place, "field is missing", "", key);

  Entry entry;
  entry.name = name;
  const auto* row = std::find_if(std::begin(safetensors_dtypes), std::end(safetensors_dtypes),
                                 [&](const SafetensorsDtype& r) { return json["dtype"] == r.name; });
  if (row == std::end(safetensors_dtypes))
    source.fail(place + ", dtype", "is not supported", shown(json["dtype"]),
                "F64 F32 BF16 F16 I64 I32 I8 U8 BOOL");
  entry.dtype = row->dtype;

  const Json& shape = json["shape"];
  if (!shape.is_array() || shape.size() > most_dims)
    source.fail(place + ", shape", "is no list of dims", shown(shape),
                fmt::format("at most {} numbers", most_dims));
  uint64_t bytes = static_cast<uint64_t>(ir::dtype_size(entry.dtype));
  bool empty = false;
  for (const Json& value : shape) {
    const uint64_t dim = read_number(source, place + ", shape", value);
    empty |= dim == 0;
    if (dim > uint64_t{1} << 62 || (dim != 0 && __builtin_mul_overflow(bytes, dim, &bytes)))
      source.fail(place + ", shape", "is too large", shown(shape));
    entry.dims.push_back(static_cast<int64_t>(dim));
  }
  if (empty) bytes = 0;

  const Json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2)
    source.fail(place + ", data_offsets", "is no pair of numbers", shown(offsets), "[begin, end]");
  entry.begin = read_number(source, place + ", data_offsets", offsets[0]);
  entry.end = read_number(source, place + ", data_offsets", offsets[1]);
  if (entry.begin > entry.end || entry.end > source.data.size())
    source.fail(place + ", data_offsets", "lie outside the data", shown(offsets),
                fmt::format("0 <= begin <= end <= {}", source.data.size()));
  if (entry.end - entry.begin != bytes)
    source.fail(place + ", data_offsets", "do not fit dtype and shape",
                fmt::format("{} bytes", entry.end - entry.begin), fmt::format("{} bytes", bytes));
  return entry;
}

/// The tensors must cover the data once, with no hole.
void check_cover(const Source& source, const std::vector<Entry>& entries) {
  uint64_t at = 0;
  const Entry* before = nullptr;
  for (const Entry& e : entries) {
    if (e.begin < at)
      source.fail("tensor " + quote(e.name) + ", data_offsets", "overlap those of " + quote(before->name),
                  fmt::format("[{}, {}]", e.begin, e.end), fmt::format("begin >= {}", at));
    if (e.begin > at)
      source.fail("tensor " + quote(e.name) + ", data_offsets", "leave bytes that belong to no tensor",
                  fmt::format("[{}, {}]", e.begin, e.end), fmt::format("begin = {}", at));
    at = e.end;
    before = &e;
  }
  if (at != source.data.size())
    source.fail("data", "more bytes than the tensors take", fmt::format("{} bytes", source.data.size()),
                fmt::format("{} bytes", at));
}

Array make_array(const Source& source, const Entry& e, const std::shared_ptr<const void>& keep) {
  const std::byte* data = source.data.data() + e.begin;
  const uint64_t bytes = e.end - e.begin;
  if (e.dtype == Dtype::boolean)
    for (uint64_t i = 0; i < bytes; ++i)
      if (std::to_integer<int>(data[i]) > 1)
        source.fail(fmt::format("tensor {}, element {}", quote(e.name), i), "is no bool",
                    std::to_string(std::to_integer<int>(data[i])), "0 or 1");
  if (bytes == 0) return Array(e.dtype, e.dims);
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(ir::dtype_size(e.dtype)) == 0)
    return Array::borrow(e.dtype, e.dims, data, keep);
  Array copy(e.dtype, e.dims);  // other writers need not align
  std::memcpy(copy.write(), data, bytes);
  return copy;
}

const char* dtype_text(Dtype dtype) {
  for (const SafetensorsDtype& row : safetensors_dtypes)
    if (row.dtype == dtype) return row.name;
  throw InternalError("safetensors: a dtype without a name");
}

}  // namespace

const Array* TensorFile::find(std::string_view name) const {
  for (const NamedTensor& t : tensors)
    if (t.name == name) return &t.value;
  return nullptr;
}

const Array& TensorFile::at(std::string_view name) const {
  if (const Array* found = find(name)) return *found;
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  throw UserError({"safetensors", "no tensor of this name", quote(name), join(names, ", ")});
}

TensorFile parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> keep,
                             const std::string& name) {
  const Source file{name, bytes};
  if (bytes.size() < 8)
    file.fail("", "is no safetensors file", fmt::format("{} bytes", bytes.size()), "at least 8 bytes");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | std::to_integer<uint64_t>(bytes[static_cast<size_t>(i)]);
  if (length > bytes.size() - 8 || length > max_header)
    file.fail("header length", "is larger than the file or the limit", std::to_string(length),
              fmt::format("at most {}", std::min<uint64_t>(bytes.size() - 8, max_header)));
  const Source source{name, bytes.subspan(8 + length)};
  const Json header = parse_header(source, {reinterpret_cast<const char*>(bytes.data()) + 8, length});

  TensorFile out;
  std::vector<Entry> entries;
  for (const auto& [key, value] : header.items()) {
    if (key != metadata_key) {
      entries.push_back(read_entry(source, key, value));
      continue;
    }
    if (!value.is_object()) source.fail(metadata_key, "is no object", shown(value), "text by name");
    for (const auto& [field, text] : value.items()) {
      if (!text.is_string())
        source.fail(fmt::format("{}, {}", metadata_key, quote(field)), "is no text", shown(text));
      out.metadata[field] = text.get<std::string>();
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_cover(source, entries);
  for (const Entry& e : entries) out.tensors.push_back({e.name, make_array(source, e, keep)});
  return out;
}

TensorFile load_safetensors(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_safetensors(file->bytes(), file, path.string());
}

void save_safetensors(const std::filesystem::path& path, const TensorFile& file) {
  const std::string where = "safetensors " + path.string();
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : file.tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const int64_t size_a = ir::dtype_size(a->value.dtype()), size_b = ir::dtype_size(b->value.dtype());
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });

  Json header = Json::object();
  if (!file.metadata.empty()) header[metadata_key] = file.metadata;
  std::set<std::string_view> names;
  int64_t at = 0;
  for (const NamedTensor* t : order) {
    if (t->name == metadata_key || !names.insert(t->name).second)
      throw UserError({where, "name stands twice or is reserved", quote(t->name), ""});
    const int64_t end = at + t->value.bytes();
    header[t->name] = {
        {"dtype", dtype_text(t->value.dtype())}, {"shape", t->value.dims()}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception& e) {
    throw UserError({where, "a name or metadata is no UTF-8", e.what(), ""});
  }
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  if (text.size() > max_header)
    throw UserError({where, "header is too large", bytes_text(static_cast<int64_t>(text.size())),
                     bytes_text(max_header)});
  char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  AtomicFile out(path);
  out.write(length, sizeof length);
  out.write(text);
  for (const NamedTensor* t : order) out.write(t->value.data(), static_cast<size_t>(t->value.bytes()));
  out.commit();
}

}  // namespace espalier::format
