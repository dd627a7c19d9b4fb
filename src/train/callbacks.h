#pragma once
// Ready callbacks of the Trainer.
#include <cstdio>
#include <filesystem>
#include <limits>
#include <utility>

#include "train/trainer.h"

namespace espalier::train {

/// Live progress: a bar that is redrawn on a terminal, plain lines (one per epoch) elsewhere.
class ESPALIER_API ProgressBar : public Callback {
 public:
  /// `names` of the values; `out` stays the caller's.
  explicit ProgressBar(std::vector<std::string> names = {"loss"}, std::FILE* out = stderr);
  void on_note(const std::string& text) override;
  void on_step(const Progress& p) override;
  bool on_epoch(const Progress& p) override;
  void on_end(const Progress& p) override;

 private:
  std::string line(const Progress& p) const;
  std::vector<std::string> names_;
  std::FILE* out_;
  bool terminal_;
  double drawn_ = -1, began_ = -1;
  int64_t first_step_ = 0;
};

/// One row per step: step, epoch, rate, values, held-out values (in the rows that end an epoch). A resumed run cuts the rows after its checkpoint and goes on; where there is no file
/// then, or rows were lost while it trained, a new one begins with the rows from there.
class ESPALIER_API CsvLog : public Callback {
 public:
  /// `names` of the values after step, epoch and rate, and of the held-out ones behind them. An epoch's rows are added to the file at its end: WriteError where they cannot
  /// be, before the first step where that is known then.
  CsvLog(std::filesystem::path path, std::vector<std::string> names = {"loss"},
         std::vector<std::string> held_out = {});
  void on_begin() override;
  void on_step(const Progress& p) override;
  bool on_epoch(const Progress& p) override;
  void on_end(const Progress& p) override;
  std::string name() const override { return "csv_log"; }
  /// Says once where the file had lost rows and was begun anew.
  std::string take_note() override { return std::exchange(note_, ""); }
  /// Bytes of the file that count and their hash, the columns, and the rows that are not in it yet.
  std::string state() const override;
  /// UserError where the text has other columns, or the file is shorter than it says or another one.
  void restore(const std::string& state) override;

 private:
  void write();
  std::filesystem::path path_;
  size_t held_out_;               ///< columns
  std::string header_, pending_;  ///< rows that are not in the file yet
  int64_t written_ = 0;           ///< bytes of the file that count
  uint64_t hash_;                 ///< of these bytes
  std::string note_;
};

/// Ends the training when a value has not improved by `min_delta` for `patience` epochs (lower is better): the mean of a training value over
/// each epoch, or a held-out value.
/// It stays ended, for another fit() and from its checkpoint too; one with more patience goes on from that checkpoint.
class ESPALIER_API EarlyStop : public Callback {
 public:
  enum class Of : uint8_t { training, held_out };
  /// UserError unless patience >= 1 and min_delta >= 0, and where the trainer gives no such value: a held-out one before the first
  /// step, another at it.
  explicit EarlyStop(int64_t patience, double min_delta = 0, size_t value = 0, Of of = Of::training);
  void on_step(const Progress& p) override;
  bool on_epoch(const Progress& p) override;
  size_t held_out_values() const override { return of_ == Of::held_out ? value_ + 1 : 0; }
  bool has_ended() const override { return waited_ > 0 && waited_ >= patience_; }
  std::string name() const override {
    return (of_ == Of::training ? "early_stop of value " : "early_stop of held-out value ") +
           std::to_string(value_);
  }
  std::string state() const override;
  void restore(const std::string& state) override;

 private:
  int64_t patience_;
  double min_delta_;
  size_t value_;
  Of of_;
  double best_ = std::numeric_limits<double>::infinity(), sum_ = 0;
  int64_t count_ = 0, waited_ = 0;
};

}  // namespace espalier::train
