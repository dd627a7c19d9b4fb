#include "target/pack_store.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>

#include "base/align.h"

namespace espalier::target {

Packed::Packed(int64_t bytes)
    : bytes_(bytes),
      data_(std::aligned_alloc(cache_line, static_cast<size_t>(whole_lines(bytes) + cache_line))) {
  if (!data_) throw std::bad_alloc();
  std::memset(data_, 0, static_cast<size_t>(bytes));  // padding between blocks is zero
}

Packed::~Packed() { std::free(data_); }

namespace {

struct Key {
  std::string layout, type;
  size_t hash;
  int64_t bytes;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the zero of the defaulted order for a pointer
  auto operator<=>(const Key&) const = default;
};

struct Entry {
  std::mutex filling;
  std::weak_ptr<const Packed> packed;
};

std::mutex store_mutex;
std::map<Key, std::shared_ptr<Entry>>& store() {
  static auto* map = new std::map<Key, std::shared_ptr<Entry>>;  // kernels may outlive static destruction
  return *map;
}

/// The entry of `key`. Entries whose packing is gone and that nobody fills are dropped.
std::shared_ptr<Entry> entry_of(const Key& key) {
  const std::lock_guard lock(store_mutex);
  std::erase_if(store(), [](const auto& e) {
    const std::unique_lock filling(e.second->filling, std::try_to_lock);
    return filling && e.second.use_count() == 1 && e.second->packed.expired();
  });
  std::shared_ptr<Entry>& entry = store()[key];
  if (!entry) entry = std::make_shared<Entry>();
  return entry;
}

}  // namespace

std::shared_ptr<const Packed> packed(const ir::Array& constant, std::string_view key, int64_t bytes,
                                     const std::function<void(void*)>& fill) {
  const std::shared_ptr<Entry> entry =
      entry_of({std::string(key), constant.type().text(), constant.hash(), bytes});
  const std::lock_guard lock(entry->filling);
  if (std::shared_ptr<const Packed> alive = entry->packed.lock()) return alive;
  auto made = std::make_shared<Packed>(bytes);
  fill(made->write());
  entry->packed = made;
  return made;
}

int64_t live_packings() {
  const std::lock_guard lock(store_mutex);
  int64_t alive = 0;
  for (const auto& [_, entry] : store()) {
    const std::lock_guard filling(entry->filling);
    alive += entry->packed.expired() ? 0 : 1;
  }
  return alive;
}

}  // namespace espalier::target
