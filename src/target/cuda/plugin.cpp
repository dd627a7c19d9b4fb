#include "target/cuda/plugin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "target/cuda/plugin_build.h"
#include "target/cuda/port.h"

namespace espalier::target::cuda {

namespace {

/// The interface of the plugin in `library`; null where it has none.
const PluginInterface* interface_of(const DynamicLibrary& library) {
  const PluginInterface* (*entry)() = nullptr;
  return library.find(plugin_entry, entry) ? entry() : nullptr;
}

std::string refuse(const DynamicLibrary& library) {
  const PluginInterface* found = interface_of(library);
  if (!found) return fmt::format("no plugin of Espalier: it lacks {}()", plugin_entry);
  if (std::strcmp(found->version, ESPALIER_VERSION) != 0)
    return fmt::format("a plugin of another version: found {}, needs {}", found->version, ESPALIER_VERSION);
  if (std::strcmp(found->build, plugin_build()) != 0)
    return fmt::format("a plugin of another build of version {}: found {:.12}, needs {:.12}", found->version,
                       found->build, plugin_build());
  return "";
}

KernelTexts kernel_texts() { return {port_text(), {std::begin(nvrtc_options), std::end(nvrtc_options)}}; }

}  // namespace

Plugin load_plugin(std::span<const std::filesystem::path> folders) {
  Plugin out;
  FoundLibrary found =
      find_library({.names = {plugin_file}, .folders = {folders.begin(), folders.end()}, .refuse = refuse});
  out.attempts = std::move(found.attempts);
  if (found.library) {
    out.interface = interface_of(*found.library);
    out.path = found.library->path();
  } else {
    out.reason = "the CUDA plugin is not used: " + reason_of(out.attempts, {plugin_file});
  }
  return out;
}

std::vector<std::filesystem::path> plugin_folders() {
  std::vector<std::filesystem::path> out;
  const auto add = [&](std::filesystem::path folder) {
    folder = folder.lexically_normal();
    if (!folder.empty() && std::find(out.begin(), out.end(), folder) == out.end()) out.push_back(folder);
  };
  for (const std::string& folder : path_list(std::getenv("ESPALIER_PLUGIN_PATH")))
    add(std::filesystem::absolute(folder));
  static const char here = 0;
  add(file_of_address(&here).parent_path());
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failed).parent_path();
  if (failed) return out;
  add(program);
  add(program / ".." / ESPALIER_LIBDIR);
  add(program / ".." / "lib");
  return out;
}

const Plugin& plugin() {
  static const Plugin loaded = load_plugin(plugin_folders());
  return loaded;
}

CudaReport report(Ask what) {
  const Plugin& p = plugin();
  if (p.interface) return p.interface->report(what);
  CudaReport out;
  out.problem = p.reason;
  return out;
}

std::shared_ptr<Device> open_device(int index) {
  const Plugin& p = plugin();
  if (!p.interface)
    throw UserError({fmt::format("device cuda:{}", index), "there is no plugin for it", p.reason, ""});
  return p.interface->open(index, kernel_texts());
}

ImagesMade make_images(const ImageRequest& request) {
  const Plugin& p = plugin();
  if (!p.interface) throw UserError({"kernel images", "cannot be made: there is no plugin", p.reason, ""});
  return p.interface->make_images(request, kernel_texts());
}

}  // namespace espalier::target::cuda
