#include "run/program_cache.h"

#include <list>
#include <mutex>
#include <unordered_map>

namespace espalier::run {

namespace {

struct Entry {
  ir::Graph graph;
  std::string options;
  std::mutex compiling;
  std::shared_ptr<const Program> program;
};

}  // namespace

struct ProgramCache::Impl {
  using Entries = std::list<std::shared_ptr<Entry>>;  // most recently used first

  explicit Impl(size_t n) : capacity(n) {}

  std::shared_ptr<Entry> entry_of(const ir::Graph& graph, const CompileOptions& options) {
    const std::string key = options.key();
    const size_t hash = ir::hash_combine(ir::structure_hash(graph), std::hash<std::string>()(key));
    const std::lock_guard lock(mutex);
    auto [from, to] = by_hash.equal_range(hash);
    for (; from != to; ++from) {
      std::shared_ptr<Entry> e = *from->second;
      if (e->options != key || !ir::same_structure(e->graph, graph)) continue;
      entries.splice(entries.begin(), entries, from->second);
      return e;
    }
    auto made = std::make_shared<Entry>();
    made->graph = graph;
    made->options = key;
    entries.push_front(made);
    by_hash.emplace(hash, entries.begin());
    while (entries.size() > capacity) drop(std::prev(entries.end()));
    return made;
  }

  void drop(Entries::iterator at) {
    std::erase_if(by_hash, [&](const auto& e) { return e.second == at; });
    entries.erase(at);
  }

  size_t capacity;
  std::mutex mutex;
  Entries entries;
  std::unordered_multimap<size_t, Entries::iterator> by_hash;
};

ProgramCache::ProgramCache(size_t capacity) : impl_(std::make_unique<Impl>(std::max<size_t>(capacity, 1))) {}
ProgramCache::~ProgramCache() = default;

std::shared_ptr<const Program> ProgramCache::get(const ir::Graph& graph, const CompileOptions& options) {
  const std::shared_ptr<Entry> entry = impl_->entry_of(graph, options);
  const std::lock_guard lock(entry->compiling);
  if (!entry->program) entry->program = Program::compile(graph, options);
  return entry->program;
}

size_t ProgramCache::size() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->entries.size();
}

void ProgramCache::clear() {
  const std::lock_guard lock(impl_->mutex);
  impl_->by_hash.clear();
  impl_->entries.clear();
}

ProgramCache& ProgramCache::global() {
  static auto* cache = new ProgramCache;  // programs may outlive static destruction
  return *cache;
}

}  // namespace espalier::run
