#include "train/callbacks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/file.h"

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

void ProgressBar::on_end(const Progress& p) {
  if (terminal_ && p.step > 0) fmt::print(out_, "\r{}\x1b[K\n", line(p));
  std::fflush(out_);
}

CsvLog::CsvLog(std::filesystem::path path, std::vector<std::string> names)
    : path_(std::move(path)), header_("step,epoch,rate") {
  for (const std::string& n : names) header_ += "," + n;
  header_ += "\n";
  text_ = header_;
}

void CsvLog::on_step(const Progress& p) {
  text_ += fmt::format("{},{},{}", p.step, p.epoch, p.rate);
  for (const double v : p.values) text_ += fmt::format(",{}", v);
  text_ += "\n";
}
bool CsvLog::on_epoch(const Progress&) {
  write();
  return false;
}
void CsvLog::on_end(const Progress&) { write(); }
void CsvLog::write() { write_file(path_, text_); }
std::string CsvLog::state() const { return text_; }
void CsvLog::restore(const std::string& state) {
  if (!state.starts_with(header_) || !state.ends_with('\n'))
    throw UserError({"csv log " + path_.string(), "its state in the checkpoint has other columns or is cut",
                     state.substr(0, state.find('\n')), header_.substr(0, header_.size() - 1)});
  text_ = state;
}

void EarlyStop::on_step(const Progress& p) {
  sum_ += p.values.at(value_);
  ++count_;
}

bool EarlyStop::on_epoch(const Progress&) {
  const double mean = count_ ? sum_ / static_cast<double>(count_) : 0;
  sum_ = 0;
  count_ = 0;
  if (mean < best_ - min_delta_) {
    best_ = mean;
    waited_ = 0;
    return false;
  }
  return ++waited_ >= patience_;
}

std::string EarlyStop::state() const { return fmt::format("{:a} {:a} {} {}", best_, sum_, count_, waited_); }

void EarlyStop::restore(const std::string& state) {
  std::istringstream in(state);
  std::string best, sum, rest;
  int64_t count = 0, waited = 0;
  const auto number = [](const std::string& text, double& value) {
    char* end = nullptr;
    value = std::strtod(text.c_str(), &end);
    return !text.empty() && *end == 0;
  };
  double best_value = 0, sum_value = 0;
  const bool read = (in >> best >> sum >> count >> waited) && !(in >> rest);
  if (!read || !number(best, best_value) || !number(sum, sum_value) || count < 0 || waited < 0)
    throw UserError({"early stop", "its state in the checkpoint cannot be read", state,
                     "best, sum, count and epochs waited"});
  best_ = best_value, sum_ = sum_value, count_ = count, waited_ = waited;
}

}  // namespace espalier::train
