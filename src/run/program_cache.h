#pragma once
// Compiled programs by graph and options: the same structure compiles once, also when several threads ask at the same time
// (the others wait). Thread-safe.
#include <memory>

#include "run/program.h"

namespace espalier::run {

class ProgramCache {
 public:
  /// Programs beyond `capacity` leave, the least recently used first; whoever holds one keeps it.
  explicit ProgramCache(size_t capacity = 1024);
  ~ProgramCache();
  ProgramCache(const ProgramCache&) = delete;
  ProgramCache& operator=(const ProgramCache&) = delete;

  /// The program of a graph of this structure under these options, compiled if it is not there. Errors of compiling pass
  /// through and are not kept.
  std::shared_ptr<const Program> get(const ir::Graph& graph, const CompileOptions& options = {});
  size_t size() const;
  void clear();

  /// The cache of the process.
  static ProgramCache& global();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace espalier::run
