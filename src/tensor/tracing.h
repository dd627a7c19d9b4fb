#pragma once
// The trace that is being recorded on this thread, for the files of tensor/ alone.
#include <vector>

#include "run/elements.h"
#include "tensor/impl.h"
#include "tensor/parameter.h"

namespace espalier {

struct Parameter::Cell {
  std::string name;
  bool trainable = true;
  std::shared_ptr<run::Elements> elements;
  std::mutex mutex;  ///< of `read`
  std::weak_ptr<TensorAccess::Impl>
      read;  ///< the tensor of the last read outside a trace, as long as one holds it
};

/// The output that holds the next value of the state input of this name.
inline std::string next_name(const std::string& input) { return input + ".next"; }

/// Parameters read and assigned while a function is traced. One at a time per thread; a trace inside a trace is a UserError.
class Tracing {
 public:
  /// Parameters' inputs get names that neither `arguments` have nor, for their next values, `results`.
  Tracing(bool freeze, std::vector<std::string> arguments, std::vector<std::string> results);
  ~Tracing();
  Tracing(const Tracing&) = delete;
  Tracing& operator=(const Tracing&) = delete;
  static Tracing* current();

  Tensor read(const Parameter& p);
  void assign(const Parameter& p, const Tensor& value);
  /// The stream of a draw with this counter: the number of draws before it.
  int64_t draw(const Parameter& counter);
  /// Let a run count one up every counter that was drawn with: the end of the trace.
  void advance_counters();

  struct Entry {
    Parameter parameter;
    std::string input;
    ir::Value old;  ///< the input
    Tensor now;     ///< the value a read gives
    bool assigned = false;
  };
  std::vector<Entry>& entries() { return entries_; }

 private:
  Entry& entry(const Parameter& p);
  std::string unique_name(const Parameter& p) const;
  bool freeze_;
  std::vector<std::string> arguments_, results_;
  int64_t draws_ = 0;
  std::vector<Parameter> counters_;
  std::vector<Entry> entries_;
};

}  // namespace espalier
