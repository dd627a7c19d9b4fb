#include "target/cuda/driver/search_places.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "base/dynamic_library.h"

namespace espalier::target::cuda::driver {

namespace {

namespace fs = std::filesystem;

/// The folders in `parent` whose names start with `prefix`, by name. Nothing where it cannot be read.
std::vector<fs::path> folders_in(const fs::path& parent, const std::string& prefix = "") {
  std::vector<fs::path> out;
  std::error_code failed;
  for (fs::directory_iterator it(parent, failed), end; !failed && it != end; it.increment(failed)) {
    std::error_code unknown;
    if (it->path().filename().string().starts_with(prefix) && it->is_directory(unknown))
      out.push_back(it->path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

bool is_folder(const fs::path& path) {
  std::error_code unknown;
  return fs::is_directory(path, unknown);
}

/// "cuda-12.4" as {12, 4}; "cuda" without a number is the oldest.
std::vector<int> toolkit_version(const fs::path& folder) {
  std::vector<int> out;
  for (const char c : folder.filename().string().substr(4))
    if (c < '0' || c > '9') out.push_back(0);
    else if (!out.empty() && out.back() < 100000) out.back() = 10 * out.back() + (c - '0');
  return out;
}

/// lib/python3*/{site,dist}-packages/nvidia/*/lib under one prefix.
std::vector<fs::path> python_libraries(const fs::path& prefix) {
  std::vector<fs::path> out;
  for (const fs::path& python : folders_in(prefix / "lib", "python3"))
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const fs::path& package : folders_in(python / packages / "nvidia"))
        if (is_folder(package / "lib")) out.push_back(package / "lib");
  return out;
}

/// Folders in order, each once: links to one that is listed are left out.
class FolderList {
 public:
  void add(const fs::path& folder) {
    std::error_code unknown;
    const fs::path real = folder.empty() ? folder : fs::weakly_canonical(folder, unknown);
    if (seen_.insert(real).second) folders_.push_back(folder);
  }
  const std::vector<fs::path>& folders() const { return folders_; }

 private:
  std::vector<fs::path> folders_;
  std::set<fs::path> seen_;
};

void add_toolkits(FolderList& places, const fs::path& root) {
  std::vector<fs::path> toolkits = folders_in(root / "usr/local", "cuda");
  std::stable_sort(toolkits.begin(), toolkits.end(), [](const fs::path& a, const fs::path& b) {
    return toolkit_version(a) > toolkit_version(b);
  });
  for (const fs::path& toolkit : toolkits)
    if (is_folder(toolkit / "lib64")) places.add(toolkit / "lib64");
}

void add_python(FolderList& places, const SearchEnvironment& e) {
  std::vector<fs::path> prefixes;
  for (const std::string& prefix : {e.virtual_env, e.conda_prefix})
    if (!prefix.empty()) prefixes.emplace_back(prefix);
  if (!e.home.empty()) prefixes.push_back(fs::path(e.home) / ".local");
  for (const std::string& folder : path_list(e.path.c_str())) {
    const fs::path python = fs::path(folder) / "python3";
    std::error_code unknown;
    if (python.is_absolute() && fs::exists(python, unknown))
      prefixes.push_back(python.parent_path().parent_path());
  }
  prefixes.push_back(e.root / "usr/local");
  prefixes.push_back(e.root / "usr");
  for (const fs::path& prefix : folders_in(e.root / "opt")) {
    prefixes.push_back(prefix);
    prefixes.push_back(prefix / ".venv");
  }
  for (const fs::path& prefix : prefixes)
    for (const fs::path& folder : python_libraries(prefix)) places.add(folder);
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

SearchEnvironment search_environment() {
  return {.cuda_path = variable("ESPALIER_CUDA_PATH"),
          .virtual_env = variable("VIRTUAL_ENV"),
          .conda_prefix = variable("CONDA_PREFIX"),
          .home = variable("HOME"),
          .path = variable("PATH")};
}

SearchPlaces search_places(const SearchEnvironment& environment) {
  FolderList own;
  for (const std::string& part : path_list(environment.cuda_path.c_str())) {
    if (part == "off") return {.driver = own.folders(), .toolkits = own.folders()};
    const fs::path folder = fs::absolute(part);
    own.add(folder);
    for (const char* libraries : {"lib64", "lib"})
      if (is_folder(folder / libraries)) own.add(folder / libraries);
    for (const fs::path& package : folders_in(folder))
      if (is_folder(package / "lib")) own.add(package / "lib");
  }
  FolderList driver = own, toolkits = own;
  driver.add("");
  const fs::path wsl = environment.root / "usr/lib/wsl/lib";  // where Windows puts the driver
  if (is_folder(wsl)) driver.add(wsl);
  toolkits.add("");
  add_toolkits(toolkits, environment.root);
  add_python(toolkits, environment);
  return {.driver = driver.folders(), .toolkits = toolkits.folders()};
}

}  // namespace espalier::target::cuda::driver
