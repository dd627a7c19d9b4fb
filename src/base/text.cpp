#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace espalier {

std::string join(std::span<const std::string> parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

std::string join(std::span<const int64_t> numbers, std::string_view separator) {
  return fmt::format("{}", fmt::join(numbers, separator));
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') (out += '\\') += c;
    else if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else if (u < 0x20 || u == 0x7f) out += fmt::format("\\x{:02x}", u);
    else out += c;
  }
  return out += '"';
}

uint64_t hash_text(std::string_view text, uint64_t hash) {
  for (const char c : text) hash = hash_step(hash, static_cast<unsigned char>(c));
  return hash;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return fmt::format("{}", value);
}

std::string bytes_text(int64_t bytes) {
  constexpr std::string_view units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (std::abs(value) >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

namespace {
bool is_word_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return is_word_start(c) || is_digit(c) || c == '.'; }
}  // namespace

void TextReader::skip_space() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') ++at_;
    else if (c == '#')
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    else return;
  }
}

bool TextReader::at_end() {
  skip_space();
  return at_ == text_.size();
}

bool TextReader::next_is(std::string_view token) {
  skip_space();
  if (text_.substr(at_, token.size()) != token) return false;
  const size_t end = at_ + token.size();  // a word must not be the start of a longer word
  return !(is_word(token.back()) && end < text_.size() && is_word(text_[end]));
}

bool TextReader::accept(std::string_view token) {
  if (!next_is(token)) return false;
  at_ += token.size();
  return true;
}

void TextReader::expect(std::string_view token) {
  if (!accept(token)) fail("unexpected text", "'" + std::string(token) + "'");
}

std::string_view TextReader::word() {
  skip_space();
  const size_t from = at_;
  if (at_ < text_.size() && is_word_start(text_[at_]))
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
  if (from == at_) fail("unexpected text", "a name");
  return text_.substr(from, at_ - from);
}

std::string TextReader::string() {
  skip_space();
  if (at_ == text_.size() || text_[at_] != '"') fail("unexpected text", "a quoted string");
  std::string out;
  for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
    if (text_[at_] != '\\') {
      out += text_[at_];
      continue;
    }
    if (++at_ == text_.size()) break;
    const char c = text_[at_];
    if (c == 'n') out += '\n';
    else if (c == 't') out += '\t';
    else if (c == '"' || c == '\\') out += c;
    else if (c == 'x' && at_ + 2 < text_.size()) {
      unsigned value = 0;
      const auto [end, ec] = std::from_chars(text_.data() + at_ + 1, text_.data() + at_ + 3, value, 16);
      if (ec != std::errc{} || end != text_.data() + at_ + 3) fail("bad escape in string", "\\xHH");
      out += static_cast<char>(value);
      at_ += 2;
    } else fail("bad escape in string", "\\\" \\\\ \\n \\t \\xHH");
  }
  if (at_ >= text_.size()) fail("string does not end", "a closing quote");
  ++at_;
  return out;
}

int64_t TextReader::integer() {
  skip_space();
  int64_t value = 0;
  const auto [end, ec] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (ec != std::errc{}) fail("not an integer of 64 bits", "an integer");
  at_ = static_cast<size_t>(end - text_.data());
  return value;
}

double TextReader::number() {
  skip_space();
  double value = 0;
  const auto [end, ec] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (ec != std::errc{}) fail("not a number", "a number, inf or nan");
  at_ = static_cast<size_t>(end - text_.data());
  return value;
}

size_t TextReader::line() const {
  return 1 + static_cast<size_t>(std::count(text_.begin(), text_.begin() + static_cast<long>(at_), '\n'));
}

void TextReader::fail(std::string problem, std::string allowed) {
  const std::string_view rest = text_.substr(std::min(at_, text_.size()), 24);
  const std::string got = rest.empty() ? "end of text" : quote(rest.substr(0, rest.find('\n')));
  throw UserError({fmt::format("{}, line {}", name_, line()), std::move(problem), got, std::move(allowed)});
}

}  // namespace espalier
