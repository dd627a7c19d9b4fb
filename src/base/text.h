#pragma once
// Small text helpers shared by printers and parsers.
#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// `parts` with `separator` between them.
std::string join(std::span<const std::string> parts, std::string_view separator);

/// Numbers as "1,2,3".
std::string join(std::span<const int64_t> numbers, std::string_view separator = ",");

/// `text` between double quotes, with \" \\ \n \t and \xHH escapes, so that unquote() gives it back.
std::string quote(std::string_view text);

/// FNV-1a (Fowler, Noll and Vo), the same in every process: for what is written to files. One unit (a byte, or a word where speed
/// matters) on top of a hash, and a text's bytes.
inline constexpr uint64_t hash_of_nothing = 14695981039346656037ull;
constexpr uint64_t hash_step(uint64_t hash, uint64_t unit) { return (hash ^ unit) * 1099511628211ull; }
uint64_t hash_text(std::string_view text, uint64_t hash = hash_of_nothing);

/// The shortest decimal text that reads back as the same double ("inf", "-inf", "nan" for the others).
std::string number_text(double value);

/// The number that all of `text` is, in decimal; none where it is something else, or out of T's range.
template <class T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Bytes for people: "1.5 MiB".
std::string bytes_text(int64_t bytes);

/// A reader over text that reports where it stands: the base of every text parser of ours.
class TextReader {
 public:
  TextReader(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

  void skip_space();                     ///< also skips comments from '#' to the end of line
  bool at_end();                         ///< nothing but space is left
  bool accept(std::string_view token);   ///< consume `token` if it is next (after space)
  void expect(std::string_view token);   ///< consume `token` or throw UserError
  bool next_is(std::string_view token);  ///< is `token` next (after space)?
  std::string_view word();               ///< [A-Za-z_][A-Za-z0-9_.]* or throw
  std::string string();                  ///< a quote()d string or throw
  int64_t integer();                     ///< decimal integer or throw
  double number();                       ///< anything number_text() prints, or throw
  [[noreturn]] void fail(std::string problem, std::string allowed = "");
  size_t line() const;  ///< 1-based line of the position
  size_t position() const { return at_; }

 private:
  std::string_view text_;
  std::string name_;
  size_t at_ = 0;
};

}  // namespace espalier
