#include "train/callbacks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>

#include "base/file.h"
#include "base/text.h"

namespace espalier::train {

ProgressBar::ProgressBar(std::vector<std::string> names, std::FILE* out)
    : names_(std::move(names)), out_(out), terminal_(::isatty(::fileno(out)) != 0) {}

std::string ProgressBar::line(const Progress& p) const {
  constexpr int width = 24;
  const int filled = static_cast<int>(p.steps ? p.step * width / p.steps : 0);
  std::string bar(static_cast<size_t>(filled), '#');
  bar.resize(width, '.');
  std::string out = fmt::format("[{}] epoch {} step {}/{}", bar, p.epoch + 1, p.step, p.steps);
  for (size_t i = 0; i < p.values.size(); ++i)
    out += fmt::format("  {} {:.4f}", i < names_.size() ? names_[i] : "value", p.values[i]);
  for (size_t i = 0; i < p.held_out.size(); ++i)
    out += fmt::format("  val_{} {:.4f}", i < names_.size() ? names_[i] : "value", p.held_out[i]);
  const int64_t here = p.step - first_step_;
  if (here > 0 && p.seconds > began_)
    out += fmt::format("  {:.0f} s left", (p.seconds - began_) / static_cast<double>(here) *
                                              static_cast<double>(p.steps - p.step));
  return out;
}

void ProgressBar::on_step(const Progress& p) {
  if (began_ < 0) {
    began_ = p.seconds;
    first_step_ = p.step;
  }
  if (!terminal_ || p.seconds - drawn_ < 0.1) return;
  drawn_ = p.seconds;
  fmt::print(out_, "\r{}\x1b[K", line(p));
  std::fflush(out_);
}

bool ProgressBar::on_epoch(const Progress& p) {
  if (!terminal_) {
    fmt::print(out_, "{}\n", line(p));
    std::fflush(out_);
  }
  return false;
}

void ProgressBar::on_note(const std::string& text) {
  fmt::print(out_, "{}{}\n", terminal_ ? "\r\x1b[K" : "", text);
  std::fflush(out_);
}

void ProgressBar::on_end(const Progress& p) {
  if (terminal_ && p.step > 0) fmt::print(out_, "\r{}\x1b[K\n", line(p));
  std::fflush(out_);
}

CsvLog::CsvLog(std::filesystem::path path, std::vector<std::string> names, std::vector<std::string> held_out)
    : path_(std::move(path)), held_out_(held_out.size()), header_("step,epoch,rate"), hash_(hash_of_nothing) {
  for (const std::string& n : names) header_ += "," + n;
  for (const std::string& n : held_out) header_ += "," + n;
  header_ += "\n";
  pending_ = header_;
}

void CsvLog::on_begin() { check_writable(path_); }
void CsvLog::on_step(const Progress& p) {
  pending_ += fmt::format("{},{},{}", p.step, p.epoch, p.rate);
  for (const double v : p.values) pending_ += fmt::format(",{}", v);
  for (size_t i = 0; i < held_out_; ++i)
    pending_ += i < p.held_out.size() ? fmt::format(",{}", p.held_out[i]) : ",";
  pending_ += "\n";
}
bool CsvLog::on_epoch(const Progress&) {
  write();
  return false;
}
void CsvLog::on_end(const Progress&) { write(); }

void CsvLog::write() {
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::status(path_, error);
  const bool none = there.type() == std::filesystem::file_type::not_found;
  const bool cut = std::filesystem::is_regular_file(there) &&
                   std::cmp_less(std::filesystem::file_size(path_, error), written_) && !error;
  if (written_ > 0 && (none || cut)) {
    note_ = fmt::format("csv log {} has lost the {} bytes written so far: it begins anew", path_.string(),
                        written_);
    written_ = 0, hash_ = hash_of_nothing;
    pending_.insert(0, header_);
  }
  written_ = append_file(path_, written_, pending_);
  hash_ = written_ > 0 ? hash_text(pending_, hash_) : hash_of_nothing;
  pending_.clear();
}

std::string CsvLog::state() const {
  return fmt::format("{} {:016x}\n{}{}", written_, hash_, header_, pending_);
}

void CsvLog::restore(const std::string& state) {
  const std::string where = "csv log " + path_.string();
  const auto fail = [&] {
    throw UserError(
        {where, "its state in the checkpoint cannot be read", quote(state.substr(0, 80)),
         "bytes, hash, columns and rows (an older version's checkpoint has no hash: begin anew)"});
  };
  int64_t bytes = 0;
  uint64_t hash = 0;
  const char* end = state.data() + state.size();
  const auto [space, bad] = std::from_chars(state.data(), end, bytes);
  if (bad != std::errc{} || bytes < 0 || space == end || *space != ' ') fail();
  const auto [at, error] = std::from_chars(space + 1, end, hash, 16);
  if (error != std::errc{} || at == end || *at != '\n' || !state.ends_with('\n')) fail();
  const std::string_view rest(at + 1, static_cast<size_t>(end - at - 1));
  if (!rest.starts_with(header_))
    throw UserError({where, "its state in the checkpoint has other columns",
                     std::string(rest.substr(0, rest.find('\n'))), header_.substr(0, header_.size() - 1)});
  std::string pending(rest.substr(header_.size()));
  if (!std::filesystem::exists(path_)) {
    if (!pending.starts_with(header_)) pending.insert(0, header_);
    bytes = 0, hash = hash_of_nothing;
  } else if (std::filesystem::is_regular_file(path_)) {
    const std::string there = read_file(path_);
    if (std::cmp_less(there.size(), bytes) ||
        hash_text(std::string_view(there).substr(0, static_cast<size_t>(bytes))) != hash)
      throw UserError(
          {where, "is not the file that the checkpoint goes on with", fmt::format("{} bytes", there.size()),
           fmt::format("the log of the training so far, {} bytes or more (or no file, for a new one)",
                       bytes)});
  }
  written_ = bytes, hash_ = hash, pending_ = std::move(pending);
}

EarlyStop::EarlyStop(int64_t patience, double min_delta, size_t value, Of of)
    : patience_(patience), min_delta_(min_delta), value_(value), of_(of) {
  if (patience < 1)
    throw UserError({"early stop: patience", "out of range", std::to_string(patience), ">= 1"});
  if (!(min_delta >= 0))
    throw UserError({"early stop: min_delta", "out of range", number_text(min_delta), ">= 0"});
}

void EarlyStop::on_step(const Progress& p) {
  const std::vector<double>& values = of_ == Of::training ? p.values : p.held_out;
  if (of_ == Of::held_out && !p.end_of_epoch) return;
  if (value_ >= values.size())
    throw UserError({name(), "the trainer gives no such value", std::to_string(value_),
                     "below " + std::to_string(values.size())});
  sum_ += values[value_];
  ++count_;
}

bool EarlyStop::on_epoch(const Progress&) {
  if (count_ == 0) return false;  // an epoch without values
  const double mean = sum_ / static_cast<double>(count_);
  sum_ = 0;
  count_ = 0;
  if (mean < best_ - min_delta_) {
    best_ = mean;
    waited_ = 0;
    return false;
  }
  return ++waited_ >= patience_;
}

std::string EarlyStop::state() const {
  return fmt::format("{} {} {} {}", number_text(best_), number_text(sum_), count_, waited_);
}

void EarlyStop::restore(const std::string& state) {
  TextReader in(state, "early stop: its state in the checkpoint");
  const double best = in.number(), sum = in.number();
  const int64_t count = in.integer(), waited = in.integer();
  if (!in.at_end() || count < 0 || waited < 0)
    in.fail("cannot be read", "best, sum, count and epochs waited");
  best_ = best, sum_ = sum, count_ = count, waited_ = waited;
}

}  // namespace espalier::train
