#pragma once
// The one pool of the process. Thread-safe: calls from several threads run one after the other; a call from inside
// a pool thread runs inline.
#include <cstdint>
#include <type_traits>

#include "base/export.h"

namespace espalier {

/// Processors this process may use: the affinity mask, cut by the cgroup's CPU quota; at least 1.
ESPALIER_API int available_threads();

/// Threads the pool uses now (available_threads() until set_threads()).
ESPALIER_API int pool_threads();

/// Threads that a library may use on this thread: 1 in the pool and where a PoolScope keeps it alone, else pool_threads().
int team_threads();

/// Use `count` threads from now on (1 <= count <= 1024, else UserError).
ESPALIER_API void set_threads(int count);

/// From now on this thread takes no signals that are sent to the process (those of its own faults it takes): every thread that
/// Espalier starts, or whose work in the pool it is, says so. A handler may then rely on running on a thread of the program's own.
void leave_signals_to_others();

/// A task over the indices 0..chunks-1: called once per index, from any pool thread.
using ChunkFn = void (*)(void* context, int64_t chunk);

/// Run `fn(context, i)` for every i in [0, chunks). The chunks are fixed by the caller (by shape), never by the number of
/// threads, so results cannot depend on it. One chunk, or one thread, runs inline with no synchronisation.
/// An exception leaves after all chunks have ended (the first one by chunk order).
ESPALIER_API void parallel_chunks(int64_t chunks, ChunkFn fn, void* context);

/// While it lives, this thread runs work in the pool, or alone.
///   parallel      libraries that open OpenMP regions of their own on this thread use pool_threads() threads, as we do
///   not parallel  parallel_chunks() on this thread runs inline, and such libraries stay on it: for callers of which many run at once
class PoolScope {
 public:
  explicit PoolScope(bool parallel);
  ~PoolScope() {
    if (alone_) end();
  }
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;

 private:
  void end();
  bool alone_;
};

/// The same for a callable.
template <class F>
void parallel_for(int64_t chunks, F&& f) {
  parallel_chunks(
      chunks, [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); }, &f);
}

}  // namespace espalier
