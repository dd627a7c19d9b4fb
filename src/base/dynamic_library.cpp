#include "base/dynamic_library.h"

#include <dlfcn.h>
#include <link.h>

#include <sstream>

namespace espalier {

namespace {

/// What dlerror() says, without the file's own name in front.
std::string last_error(const std::string& file) {
  const char* text = dlerror();
  std::string reason = text ? text : "the loader does not say why";
  if (reason.starts_with(file + ": ")) {
    reason.erase(0, file.size() + 2);
    if (reason == "cannot open shared object file: No such file or directory") return not_there;
  }
  return reason;
}

std::filesystem::path path_of(void* handle, const std::filesystem::path& asked) {
  link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map && *map->l_name ? map->l_name : asked;
}

}  // namespace

void* DynamicLibrary::find(const char* symbol) const { return dlsym(handle_, symbol); }

FoundLibrary find_library(const LibrarySearch& search) {
  FoundLibrary out;
  for (const std::filesystem::path& folder : search.folders)
    for (const std::string& name : search.names) {
      const std::filesystem::path file = folder / name;
      void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!handle) {
        out.attempts.push_back({file, last_error(file.string())});
        continue;
      }
      DynamicLibrary library(handle, path_of(handle, file));
      std::string refusal = search.refuse ? search.refuse(library) : "";
      if (refusal.empty()) {
        out.library = std::move(library);
        return out;
      }
      out.attempts.push_back({library.path(), std::move(refusal)});
      dlclose(handle);
    }
  return out;
}

std::string reason_of(const std::vector<LibraryAttempt>& attempts, const std::vector<std::string>& names) {
  for (const LibraryAttempt& attempt : attempts)
    if (attempt.reason != not_there) return attempt.file.string() + ": " + attempt.reason;
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : " or ") + name;
  return out + " is " + not_there;
}

std::vector<std::string> path_list(const char* text) {
  std::vector<std::string> out;
  std::istringstream parts(text ? text : "");
  for (std::string part; std::getline(parts, part, ':');)
    if (!part.empty()) out.push_back(part);
  return out;
}

std::filesystem::path file_of_address(const void* address) {
  Dl_info info{};
  link_map* map = nullptr;
  if (dladdr1(address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0 || !map) return {};
  const std::filesystem::path file = *map->l_name ? map->l_name : "/proc/self/exe";  // "": the program
  std::error_code failed;
  std::filesystem::path whole = std::filesystem::canonical(file, failed);
  return failed ? file : whole;
}

}  // namespace espalier
