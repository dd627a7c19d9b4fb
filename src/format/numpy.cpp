#include "format/numpy.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <optional>

#include "base/file.h"
#include "base/text.h"

namespace espalier::format {

using ir::Array;
using ir::Dtype;

namespace {

constexpr std::string_view magic{"\x93NUMPY", 6};
constexpr int max_rank = 64;

struct NumpyDtype {
  Dtype dtype;
  std::string_view written;  // the descr we write
  std::string_view code;     // kind and size, as it stands behind the byte order
};
constexpr NumpyDtype numpy_dtypes[] = {
    {Dtype::f64, "<f8", "f8"}, {Dtype::f32, "<f4", "f4"}, {Dtype::bf16, "<V2", "V2"},
    {Dtype::f16, "<f2", "f2"}, {Dtype::i64, "<i8", "i8"}, {Dtype::i32, "<i4", "i4"},
    {Dtype::i8, "|i1", "i1"},  {Dtype::u8, "|u1", "u1"},  {Dtype::boolean, "|b1", "b1"},
};
constexpr const char* allowed_descr = "f8 f4 f2 i8 i4 i1 u1 b1, or V2 for bf16, behind one of < > = |";

[[noreturn]] void fail_numpy(const std::string& name, const std::string& field, std::string problem,
                             std::string got = "", std::string allowed = "") {
  throw UserError({"npy " + name + (field.empty() ? "" : ", " + field), std::move(problem), std::move(got),
                   std::move(allowed)});
}

/// What the header's dictionary says.
struct Header {
  Dtype dtype = Dtype::f32;
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

/// Reads the Python literal {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } and nothing else.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  Header read() {
    expect('{');
    while (!accept('}')) {
      const std::string key = string("a key");
      expect(':');
      if (key == "descr") set(seen_descr_, key), descr();
      else if (key == "fortran_order") set(seen_order_, key), header_.fortran_order = boolean();
      else if (key == "shape") set(seen_shape_, key), shape();
      else fail_numpy(name_, "header", "unknown key", quote(key), "descr, fortran_order, shape");
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) wrong("nothing behind the dictionary");
    const char* missing = !seen_descr_   ? "descr"
                          : !seen_order_ ? "fortran_order"
                          : !seen_shape_ ? "shape"
                                         : nullptr;
    if (missing) fail_numpy(name_, "header", "key is missing", "", missing);
    return header_;
  }

 private:
  void set(bool& seen, const std::string& key) {
    if (seen) fail_numpy(name_, "header", "key stands twice", quote(key));
    seen = true;
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) wrong(fmt::format("'{}'", c));
  }
  [[noreturn]] void wrong(std::string allowed) {
    fail_numpy(name_, fmt::format("header, character {}", at_), "malformed dictionary",
               at_ < text_.size() ? quote(text_.substr(at_, 16)) : "the end of the header",
               std::move(allowed));
  }
  std::string string(const char* what) {
    skip_space();
    const char mark = at_ < text_.size() ? text_[at_] : '\0';
    if (mark != '\'' && mark != '"') wrong(std::string(what) + " in quotes");
    const size_t end = text_.find(mark, at_ + 1);
    if (end == std::string_view::npos) wrong("a closing quote");
    std::string out(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return out;
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"})
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return word == "True";
      }
    wrong("True or False");
  }
  void descr() {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[')
      fail_numpy(name_, "descr", "structured dtypes are not supported", quote(text_.substr(at_, 40)),
                 allowed_descr);
    const std::string text = string("a dtype");
    const std::string_view code = text.empty() ? std::string_view() : std::string_view(text).substr(1);
    const bool order_known =
        !text.empty() && std::string_view("<>=|").find(text[0]) != std::string_view::npos;
    for (const NumpyDtype& row : numpy_dtypes) {
      if (!order_known || row.code != code) continue;
      header_.dtype = row.dtype;
      header_.big_endian = text[0] == '>' && ir::dtype_size(row.dtype) > 1;
      return;
    }
    fail_numpy(name_, "descr", "dtype is not supported", quote(text), allowed_descr);
  }
  void shape() {
    expect('(');
    while (!accept(')')) {
      skip_space();
      int64_t dim = 0;
      const size_t start = at_;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        if (__builtin_mul_overflow(dim, int64_t{10}, &dim) ||
            __builtin_add_overflow(dim, text_[at_] - '0', &dim))
          fail_numpy(name_, "shape", "dim is too large", quote(text_.substr(start, 24)), "below 2^63");
      if (at_ == start) wrong("a dim >= 0");
      header_.shape.push_back(dim);
      if (header_.shape.size() > max_rank)
        fail_numpy(name_, "shape", "too many dims", fmt::format("over {}", max_rank),
                   fmt::format("at most {}", max_rank));
      if (!accept(',')) {
        if (header_.shape.size() == 1) wrong("',' behind the only dim");
        expect(')');
        break;
      }
    }
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
  Header header_;
  bool seen_descr_ = false, seen_order_ = false, seen_shape_ = false;
};

/// Bytes that `shape` takes, or none when 64 bits do not count them.
std::optional<uint64_t> bytes_of(const Header& header) {
  uint64_t n = static_cast<uint64_t>(ir::dtype_size(header.dtype));
  bool empty = false, over = false;
  for (const int64_t dim : header.shape) {
    empty |= dim == 0;
    if (dim != 0) over |= __builtin_mul_overflow(n, static_cast<uint64_t>(dim), &n);
  }
  if (over) return std::nullopt;
  return empty ? 0 : n;
}

/// Copy elements of `size` bytes from Fortran order to C order.
void reorder(const char* in, char* out, const std::vector<int64_t>& dims, size_t size) {
  const size_t rank = dims.size();
  std::vector<int64_t> index(rank, 0), stride(rank, 1);
  for (size_t d = 1; d < rank; ++d) stride[d] = stride[d - 1] * dims[d - 1];
  int64_t from = 0;
  const int64_t n = ir::count(std::span<const int64_t>(dims));
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(out + static_cast<size_t>(i) * size, in + static_cast<size_t>(from) * size, size);
    for (size_t d = rank; d-- > 0;) {
      from += stride[d];
      if (++index[d] < dims[d]) break;
      from -= stride[d] * dims[d];
      index[d] = 0;
    }
  }
}

void swap_bytes(char* data, size_t count, size_t size) {
  for (size_t i = 0; i < count; ++i, data += size)
    for (size_t k = 0; k < size / 2; ++k) std::swap(data[k], data[size - 1 - k]);
}

}  // namespace

Array parse_npy(std::string_view bytes, const std::string& name) {
  if (bytes.size() < 10 || bytes.substr(0, 6) != magic)
    fail_numpy(name, "", "is no .npy file",
               bytes.size() < 10 ? bytes_text(static_cast<int64_t>(bytes.size())) : quote(bytes.substr(0, 6)),
               "\"\\x93NUMPY\" in front");
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])); };
  const uint32_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0)
    fail_numpy(name, "version", "is unknown", fmt::format("{}.{}", major, minor), "1.0, 2.0 or 3.0");
  const size_t start = major == 1 ? 10 : 12;
  if (bytes.size() < start)
    fail_numpy(name, "header", "file is truncated", fmt::format("{} bytes", bytes.size()));
  const uint64_t length =
      major == 1 ? byte(8) | byte(9) << 8
                 : byte(8) | byte(9) << 8 | byte(10) << 16 | static_cast<uint64_t>(byte(11)) << 24;
  if (length > bytes.size() - start)
    fail_numpy(name, "header length", "header is longer than the file", std::to_string(length),
               fmt::format("at most {}", bytes.size() - start));
  const Header header = HeaderReader(bytes.substr(start, length), name).read();
  const std::string_view data = bytes.substr(start + length);
  const std::optional<uint64_t> wanted = bytes_of(header);
  if (!wanted || *wanted != data.size())
    fail_numpy(name, "data",
               wanted && *wanted < data.size() ? "more bytes than the shape says" : "file is truncated",
               fmt::format("{} bytes", data.size()),
               fmt::format("{} for shape {}", wanted ? fmt::format("{} bytes", *wanted) : "over 2^64 bytes",
                           ir::dims_text(std::span<const int64_t>(header.shape))));
  const auto size = static_cast<size_t>(ir::dtype_size(header.dtype));
  if (header.dtype == Dtype::boolean)
    for (size_t i = 0; i < data.size(); ++i)
      if (static_cast<unsigned char>(data[i]) > 1)
        fail_numpy(name, fmt::format("element {}", i), "is no bool",
                   std::to_string(static_cast<unsigned char>(data[i])), "0 or 1");
  Array out(header.dtype, header.shape);
  auto* to = static_cast<char*>(out.write());
  if (data.empty()) return out;
  if (header.fortran_order && header.shape.size() > 1) reorder(data.data(), to, header.shape, size);
  else std::memcpy(to, data.data(), data.size());
  if (header.big_endian) swap_bytes(to, data.size() / size, size);
  return out;
}

Array load_npy(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_npy({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()},
                   path.string());
}

std::string npy_header(const Array& array) {
  std::string_view descr;
  for (const NumpyDtype& row : numpy_dtypes)
    if (row.dtype == array.dtype()) descr = row.written;
  std::string shape = "(";
  for (const int64_t dim : array.dims()) shape += fmt::format("{}, ", dim);
  if (array.rank() > 1) shape.resize(shape.size() - 2);
  else if (array.rank() == 1) shape.resize(shape.size() - 1);
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}), }}", descr, shape);
  text.append(63 - (10 + text.size()) % 64, ' ');
  text += '\n';
  if (text.size() > std::numeric_limits<uint16_t>::max())
    throw UserError({"npy", "too many dims to write", std::to_string(array.rank()), ""});
  std::string out(magic);
  out += {'\x01', '\x00', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return out += text;
}

void save_npy(const std::filesystem::path& path, const Array& array) {
  AtomicFile file(path);
  file.write(npy_header(array));
  file.write(array.data(), static_cast<size_t>(array.bytes()));
  file.commit();
}

}  // namespace espalier::format
