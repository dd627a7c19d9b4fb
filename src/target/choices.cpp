#include "target/choices.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/text.h"

namespace espalier::target {

namespace {

constexpr std::string_view first_line = "espalier choices 1";
constexpr double most_us = 1e12;

/// The word before the first blank of `rest`, which loses both.
std::string_view word(std::string_view& rest) {
  const size_t blank = rest.find(' ');
  const std::string_view out = rest.substr(0, blank);
  rest = blank == std::string_view::npos ? std::string_view() : rest.substr(blank + 1);
  return out;
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view source) : rest_(text), source_(source) {}

  Choices run() {
    if (!next() || line_ != first_line) fail("is no plan of `espalier tune`", line_, std::string(first_line));
    while (next()) {
      std::string_view rest = line_;
      const std::string_view what = word(rest);
      if (what == "device") device(rest);
      else if (what == "library") library(rest);
      else if (what == "choice") choice(rest);
      else fail("begins with an unknown word", what, "device, library or choice");
    }
    if (out_.device.empty()) fail("the plan names no device", "", "a line \"device NAME\"");
    return std::move(out_);
  }

 private:
  /// Every line ends with a newline.
  bool next() {
    if (rest_.empty()) return false;
    ++number_;
    const size_t end = rest_.find('\n');
    line_ = rest_.substr(0, end);
    if (end == std::string_view::npos) fail("ends in the middle of a line", line_, "a whole plan");
    rest_ = rest_.substr(end + 1);
    return true;
  }

  void device(std::string_view name) {
    if (name.empty() || !out_.device.empty()) fail("names no device, or another one", name, "one device");
    out_.device = name;
  }

  void library(std::string_view rest) {
    const std::string_view name = word(rest);
    if (name.empty() || rest.empty() || !out_.libraries.emplace(name, rest).second)
      fail("is no library with its version, once", line_, "library NAME VERSION");
  }

  void choice(std::string_view rest) {
    const std::string_view us = word(rest), name = word(rest);
    Choice made{.name = std::string(name)};
    const auto time = number_of<double>(us);
    if (!time || !(*time >= 0) || *time > most_us)
      fail("has no time in microseconds", us, "a number from 0 on");
    made.us = *time;
    if (name.empty() || rest.empty()) fail("is no choice for a record", line_, "choice TIME NAME RECORD");
    if (!out_.records.emplace(rest, std::move(made)).second)
      fail("is a second choice for a record", rest, "one");
  }

  [[noreturn]] void fail(std::string_view problem, std::string_view got, std::string allowed) const {
    constexpr size_t shown = 120;
    throw UserError({fmt::format("{}, line {}", source_, number_), std::string(problem),
                     std::string(got.substr(0, shown)), std::move(allowed)});
  }

  std::string_view rest_, line_, source_;
  int64_t number_ = 0;
  Choices out_;
};

}  // namespace

std::string choice_key(const CallRecord::Work& work) {
  const std::string all = text(CallRecord{.work = work, .operands = {}, .cost = {}});
  return all.substr(0, all.rfind(" :"));
}

std::shared_ptr<const Ways> ways_of(Choices choices) {
  class Kept final : public Ways {
   public:
    explicit Kept(Choices choices) : choices_(std::move(choices)) {}
    std::string_view find(const CallRecord::Work& work) const override {
      const auto it = choices_.records.find(choice_key(work));
      return it == choices_.records.end() ? std::string_view() : it->second.name;
    }

   private:
    const Choices choices_;
  };
  return std::make_shared<const Kept>(std::move(choices));
}

std::string text(const Choices& c) {
  std::string out = fmt::format("{}\ndevice {}\n", first_line, c.device);
  for (const auto& [name, version] : c.libraries) out += fmt::format("library {} {}\n", name, version);
  for (const auto& [record, choice] : c.records)
    out += fmt::format("choice {:.3f} {} {}\n", choice.us, choice.name, record);
  return out;
}

Choices parse_choices(std::string_view text, std::string_view source) { return Parser(text, source).run(); }

}  // namespace espalier::target
