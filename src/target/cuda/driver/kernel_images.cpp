#include "target/cuda/driver/kernel_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/text.h"

namespace espalier::target::cuda::driver {

namespace {

using nlohmann::json;

constexpr char list_file[] = "images.json", list_format[] = "espalier kernel images 1";
constexpr int64_t most_bytes = int64_t{256} << 20;

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// A file of the folder itself, whatever the name says.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") ==
             std::string_view::npos;
}

bool is_arch(std::string_view arch) {
  const size_t bar = arch.find('_');
  if (bar == std::string_view::npos || (arch.substr(0, bar) != "sm" && arch.substr(0, bar) != "compute"))
    return false;
  const std::string_view number = arch.substr(bar + 1);
  return !number.empty() && number.size() <= 4 &&
         number.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string checksum_of(std::string_view bytes) { return fmt::format("{:016x}", hash_text(bytes)); }

json to_json(const ImageEntry& e) {
  return {{"file", e.file},   {"arch", e.arch},         {"compiler", e.compiler}, {"espalier", e.espalier},
          {"bytes", e.bytes}, {"checksum", e.checksum}, {"kernels", e.kernels}};
}

/// One entry of a list, field by field.
class EntryReader {
 public:
  EntryReader(const json& entry, std::string where) : entry_(entry), where_(std::move(where)) {
    if (!entry.is_object()) fail("is no object", entry.type_name(), "an image with its fields");
  }

  ImageEntry run() const {
    ImageEntry e{.file = word("file"),
                 .arch = word("arch"),
                 .compiler = word("compiler"),
                 .espalier = word("espalier"),
                 .bytes = 0,
                 .checksum = word("checksum"),
                 .kernels = {}};
    if (!is_plain_name(e.file)) fail("\"file\" is no name in the folder", e.file, "letters, digits, _ . -");
    if (!is_arch(e.arch)) fail("\"arch\" is none", e.arch, "as sm_90 or compute_90");
    if (!is_hex(e.checksum, 16)) fail("\"checksum\" is none", e.checksum, "16 digits");
    const json& bytes = field("bytes");
    if (!bytes.is_number_unsigned() || bytes.get<uint64_t>() > static_cast<uint64_t>(most_bytes))
      fail("\"bytes\" is no size of an image", shown(bytes), fmt::format("0 to {}", most_bytes));
    e.bytes = bytes.get<int64_t>();
    const json& kernels = field("kernels");
    if (!kernels.is_object() || kernels.empty()) fail("has no kernels", shown(kernels), "names and keys");
    for (const auto& [name, key] : kernels.items()) {
      if (!is_plain_name(name) || !key.is_string() || !is_hex(key.get<std::string>(), 32))
        fail("has no key of the kernel " + short_text(name), shown(key), "32 digits");
      e.kernels[name] = key.get<std::string>();
    }
    return e;
  }

 private:
  static std::string short_text(const std::string& text) { return text.substr(0, 80); }
  static std::string shown(const json& value) {
    return short_text(value.dump(-1, ' ', true, json::error_handler_t::replace));
  }
  [[noreturn]] void fail(const std::string& problem, const std::string& got,
                         const std::string& allowed) const {
    throw UserError({where_, problem, short_text(got), allowed});
  }
  const json& field(const char* name) const {
    const auto it = entry_.find(name);
    if (it == entry_.end()) fail(fmt::format("lacks \"{}\"", name), "", "");
    return *it;
  }
  std::string word(const char* name) const {
    const json& value = field(name);
    if (!value.is_string()) fail(fmt::format("\"{}\" is no text", name), shown(value), "text");
    return value.get<std::string>();
  }

  const json& entry_;
  std::string where_;
};

}  // namespace

std::string image_key(std::string_view device, const KernelTexts& texts, const KernelSource& source,
                      std::string_view arch) {
  const std::string all = fmt::format("{}\n{}\n{}\n{}\n{}\n{}", device, arch, join(texts.options, " "),
                                      texts.header.size(), texts.header, source.text);
  return fmt::format("{:016x}{:016x}", hash_text(all), hash_text(all, hash_text("the other half")));
}

std::string image_list_text(std::span<const ImageEntry> images) {
  std::string out = fmt::format("{{\"format\": \"{}\", \"images\": [", list_format);
  for (size_t i = 0; i < images.size(); ++i)
    out += (i ? ",\n  " : "\n  ") + to_json(images[i]).dump(-1, ' ', false, json::error_handler_t::replace);
  return out + "\n]}\n";
}

std::vector<ImageEntry> parse_image_list(std::string_view text, const std::string& source) {
  const json all = json::parse(text, nullptr, false);
  if (!all.is_object()) throw UserError({source, "is no list of kernel images: no JSON object", "", ""});
  const auto format = all.find("format");
  if (format == all.end() || !format->is_string() || format->get<std::string>() != list_format)
    throw UserError(
        {source, "is no list of kernel images, or one of another version",
         format == all.end() ? "" : format->dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80),
         fmt::format("\"format\": \"{}\"", list_format)});
  const auto images = all.find("images");
  if (images == all.end() || !images->is_array()) throw UserError({source, "has no list \"images\"", "", ""});
  std::vector<ImageEntry> out;
  std::set<std::string> files;
  for (const json& entry : *images) {
    const std::string where = fmt::format("{}, image {}", source, out.size());
    out.push_back(EntryReader(entry, where).run());
    if (!files.insert(out.back().file).second)
      throw UserError({where, "has the file of one before", out.back().file, ""});
  }
  return out;
}

ImageFolder::ImageFolder(std::filesystem::path path) : path_(std::move(path)) {
  try {
    images_ = parse_image_list(read_file(path_ / list_file), (path_ / list_file).string());
  } catch (const UserError& e) {
    problem_ = e.what();
  }
  for (size_t i = 0; i < images_.size(); ++i)
    for (const auto& [name, key] : images_[i].kernels) by_key_.emplace(key, i);
}

const ImageEntry* ImageFolder::find(std::string_view key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : &images_[it->second];
}

std::string ImageFolder::read(const ImageEntry& image) const {
  const std::filesystem::path file = path_ / image.file;
  std::string bytes = read_file(file);
  if (static_cast<int64_t>(bytes.size()) != image.bytes || checksum_of(bytes) != image.checksum)
    throw UserError({file.string(), fmt::format("is damaged, or not the image that {} lists", list_file),
                     fmt::format("{} bytes, checksum {}", bytes.size(), checksum_of(bytes)),
                     fmt::format("{} bytes, checksum {}", image.bytes, image.checksum)});
  return bytes;
}

namespace {

/// What is in a folder that images are added to. An absent list is an empty one.
std::vector<ImageEntry> images_there(const std::filesystem::path& folder) {
  const std::filesystem::path list = folder / list_file;
  return std::filesystem::exists(list) ? parse_image_list(read_file(list), list.string())
                                       : std::vector<ImageEntry>();
}

/// The image with the kernel, where it is not damaged.
const ImageEntry* find_whole(const ImageFolder& folder, const std::string& key) {
  const ImageEntry* there = folder.find(key);
  if (!there) return nullptr;
  try {
    (void)folder.read(*there);
  } catch (const UserError&) {
    return nullptr;
  }
  return there;
}

/// The images of one architecture, added to the list.
class Writer {
 public:
  Writer(const ImageRequest& request, const ImageMaker& maker)
      : request_(request), maker_(maker), before_(request.folder), all_(images_there(request.folder)) {}

  void add(int arch, std::span<const KernelSource> sources, bool ptx) {
    std::map<std::string, const KernelSource*> by_name;
    std::vector<KernelSource> missing;
    for (const KernelSource& s : sources) {
      by_name[s.name] = &s;
      if (!is_there(s, arch, ptx)) missing.push_back(s);
    }
    constexpr size_t at_once = 256;  // what is written stays where the rest is interrupted
    for (size_t i = 0; i < missing.size(); i += at_once) {
      for (const MadeImage& image :
           maker_.make(std::span(missing).subspan(i, std::min(at_once, missing.size() - i)), arch, ptx))
        put(image, by_name);
      write_list();
    }
  }

  ImagesMade end() {
    write_list();
    return out_;
  }

 private:
  std::string key_of(const KernelSource& source, const std::string& arch) const {
    return image_key(maker_.device, maker_.texts, source, arch);
  }

  bool is_there(const KernelSource& source, int arch, bool ptx) {
    std::vector<std::string> wanted{fmt::format("sm_{}", arch)};
    if (ptx) wanted.push_back(fmt::format("compute_{}", arch));
    std::vector<const ImageEntry*> found;
    for (const std::string& name : wanted) {
      found.push_back(find_whole(before_, key_of(source, name)));
      if (!found.back()) return false;
    }
    for (const ImageEntry* image : found)
      if (counted_.insert(image->file).second) {
        ++out_.kept;
        out_.bytes += image->bytes;
        out_.compiler = image->compiler;
      }
    return true;
  }

  void put(const MadeImage& image, const std::map<std::string, const KernelSource*>& by_name) {
    ImageEntry entry = entry_of(image, by_name);
    std::erase_if(all_, [&](const ImageEntry& e) { return e.file == entry.file; });
    write_file(request_.folder / entry.file, image.bytes);
    out_.compiler = image.compiler;
    out_.bytes += entry.bytes;
    ++out_.made;
    all_.push_back(std::move(entry));
  }

  void write_list() {
    std::ranges::sort(all_, {}, &ImageEntry::file);
    write_file(request_.folder / list_file, image_list_text(all_));
  }

  ImageEntry entry_of(const MadeImage& image,
                      const std::map<std::string, const KernelSource*>& by_name) const {
    ImageEntry e{.file = "",
                 .arch = image.arch,
                 .compiler = image.compiler,
                 .espalier = ESPALIER_VERSION,
                 .bytes = static_cast<int64_t>(image.bytes.size()),
                 .checksum = checksum_of(image.bytes),
                 .kernels = {}};
    for (const std::string& name : image.kernels) e.kernels[name] = key_of(*by_name.at(name), image.arch);
    const auto& [name, key] = *e.kernels.begin();
    e.file = fmt::format("{}.{}.{}.{}", name, image.arch, key.substr(0, 8), image.kind);
    return e;
  }

  const ImageRequest& request_;
  const ImageMaker& maker_;
  const ImageFolder before_;
  std::vector<ImageEntry> all_;
  std::set<std::string> counted_;
  ImagesMade out_;
};

}  // namespace

ImagesMade write_images(const ImageRequest& request, const ImageMaker& maker) {
  make_folder(request.folder);
  Writer writer(request, maker);
  for (const auto& [arch, sources] : request.sources)
    writer.add(arch, sources, arch == request.sources.rbegin()->first);
  return writer.end();
}

}  // namespace espalier::target::cuda::driver
