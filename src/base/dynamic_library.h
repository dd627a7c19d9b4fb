#pragma once
// Shared libraries found at run time: they are not linked, and no header of theirs is needed to build. What was tried and why it did
// not serve is kept, so that an absence can be explained. Safe from any thread.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// A library that stays loaded until the process ends.
class DynamicLibrary {
 public:
  /// The address of a symbol; null where the library lacks it.
  void* find(const char* symbol) const;
  /// Set `out` to the function of that name, or to null; false where the library lacks it.
  template <class Function>
  bool find(const char* symbol, Function*& out) const {
    out = reinterpret_cast<Function*>(find(symbol));
    return out != nullptr;
  }
  /// The file it was loaded from, as the loader names it.
  const std::filesystem::path& path() const { return path_; }

 private:
  friend struct FoundLibrary find_library(const struct LibrarySearch& search);
  DynamicLibrary(void* handle, std::filesystem::path path) : handle_(handle), path_(std::move(path)) {}
  void* handle_;
  std::filesystem::path path_;
};

/// Where to look, in order: every name in the first folder, then every name in the second.
struct LibrarySearch {
  std::vector<std::string> names;              ///< of files, the best one first
  std::vector<std::filesystem::path> folders;  ///< "": wherever the loader looks by itself
  /// Why a library that loads does not serve, "" where it does; the search goes on after one that does not. May be empty.
  std::function<std::string(const DynamicLibrary&)> refuse = {};
};

/// The reason of an attempt where no such file is.
inline constexpr char not_there[] = "not there";

/// One file that was tried and did not serve.
struct LibraryAttempt {
  std::filesystem::path file;  ///< a name without a folder: left to the loader
  std::string reason;
  bool operator==(const LibraryAttempt&) const = default;
};

struct FoundLibrary {
  std::optional<DynamicLibrary> library;  ///< the first that served
  std::vector<LibraryAttempt> attempts;   ///< all before it, in order
};

/// Load the first library that serves, its symbols for itself alone (RTLD_NOW, RTLD_LOCAL).
FoundLibrary find_library(const LibrarySearch& search);

/// The one line for all attempts: what was wrong with the first file that is there, else that none of `names` is.
std::string reason_of(const std::vector<LibraryAttempt>& attempts, const std::vector<std::string>& names);

/// The parts of a list of folders with colons between, as environment variables hold it; empty parts are dropped. Null is no list.
std::vector<std::string> path_list(const char* text);

/// The file that holds this code or data: of a program, or of a shared library. Empty where nothing loaded holds it.
std::filesystem::path file_of_address(const void* address);

}  // namespace espalier
