#include "target/cpu/jit/elf_loader.h"

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/align.h"
#include "base/error.h"

namespace espalier::target::cpu {
namespace {

constexpr size_t max_object = size_t{256} << 20, stub_bytes = 16;

[[noreturn]] void refuse(std::string problem, std::string got = "") {
  throw UserError({"object file", std::move(problem), std::move(got),
                   "a relocatable x86-64 ELF object of code and constants"});
}

}  // namespace

/// Reads one object: checks, places its sections, applies relocations.
class ObjectReader {
 public:
  ObjectReader(std::span<const std::byte> bytes, std::span<const ExternalSymbol> externals)
      : bytes_(bytes), externals_(externals) {}

  LoadedObject read() {
    read_headers();
    place_sections();
    map();
    LoadedObject out;
    out.base_ = base_;
    out.size_ = size_;  // from here on `out` unmaps
    read_symbols();
    for (size_t i = 0; i < sections_.size(); ++i) relocate(i);
    for (size_t i = 0; i < symbols_.size(); ++i) publish(i, out);
    if (mprotect(base_, code_bytes_, PROT_READ | PROT_EXEC) != 0 ||
        (size_ > code_bytes_ && mprotect(base_ + code_bytes_, size_ - code_bytes_, PROT_READ) != 0))
      refuse("the system refuses executable memory");
    return out;
  }

 private:
  template <class T>
  T at(uint64_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T))
      refuse("a record lies beyond the end of the file");
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof(T));
    return value;
  }

  void check_range(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || bytes_.size() - offset < size)
      refuse("a section lies beyond the end of the file");
  }

  void read_headers() {
    if (bytes_.size() > max_object) refuse("too large");
    const auto h = at<Elf64_Ehdr>(0);
    if (std::memcmp(h.e_ident, ELFMAG, SELFMAG) != 0) refuse("not an ELF file");
    if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_machine != EM_X86_64)
      refuse("for another machine");
    if (h.e_type != ET_REL) refuse("not relocatable");
    if (h.e_shentsize != sizeof(Elf64_Shdr) || h.e_shnum == 0) refuse("has no section table");
    check_range(h.e_shoff, uint64_t{h.e_shnum} * sizeof(Elf64_Shdr));
    for (size_t i = 0; i < h.e_shnum; ++i)
      sections_.push_back(at<Elf64_Shdr>(h.e_shoff + i * sizeof(Elf64_Shdr)));
    for (const Elf64_Shdr& s : sections_)
      if (s.sh_type != SHT_NOBITS && s.sh_type != SHT_NULL) check_range(s.sh_offset, s.sh_size);
  }

  bool is_loaded(size_t i) const { return place_[i] != unplaced; }

  /// Code first, then stubs to external functions; constants and the table of absolute addresses on pages of their own.
  void place_sections() {
    place_.assign(sections_.size(), unplaced);
    size_t symbol_count = 0;
    for (const Elf64_Shdr& s : sections_)
      if (s.sh_type == SHT_SYMTAB) symbol_count += s.sh_size / sizeof(Elf64_Sym);
    size_t end = 0;
    const auto place = [&](bool code) {
      for (size_t i = 0; i < sections_.size(); ++i) {
        const Elf64_Shdr& s = sections_[i];
        const bool wanted = s.sh_type == SHT_PROGBITS && (s.sh_flags & SHF_ALLOC) && s.sh_size > 0;
        if (!wanted || ((s.sh_flags & SHF_EXECINSTR) != 0) != code) continue;
        if (s.sh_flags & (SHF_WRITE | SHF_TLS)) refuse("has writable data");
        const uint64_t align = s.sh_addralign ? s.sh_addralign : 1;
        if ((align & (align - 1)) != 0 || align > 4096) refuse("a section has an impossible alignment");
        end = round_up(end, align);
        place_[i] = end;
        end += s.sh_size;
      }
    };
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    place(true);
    stubs_ = round_up(end, stub_bytes);
    end = code_bytes_ = round_up(stubs_ + symbol_count * stub_bytes, page);
    place(false);
    table_ = round_up(end, 8);
    size_ = round_up(table_ + symbol_count * 8, page);
    for (const Elf64_Shdr& s : sections_)
      if (s.sh_type == SHT_NOBITS && (s.sh_flags & SHF_ALLOC) && s.sh_size > 0) refuse("has writable data");
    if (code_bytes_ == 0) refuse("has no code");
  }

  void map() {
    void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) refuse("no memory for it", std::to_string(size_) + " bytes");
    base_ = static_cast<std::byte*>(p);
    for (size_t i = 0; i < sections_.size(); ++i)
      if (is_loaded(i))
        std::memcpy(base_ + place_[i], bytes_.data() + sections_[i].sh_offset, sections_[i].sh_size);
  }

  std::string_view name_at(const Elf64_Shdr& strings, uint64_t offset) const {
    if (strings.sh_type != SHT_STRTAB || offset >= strings.sh_size)
      refuse("a name lies outside the string table");
    const char* text = reinterpret_cast<const char*>(bytes_.data()) + strings.sh_offset + offset;
    const size_t room = strings.sh_size - offset, length = strnlen(text, room);
    if (length == room) refuse("a name has no end");
    return {text, length};
  }

  struct Symbol {
    std::string_view name;
    uint64_t address = 0;  // 0: not defined here
    bool global = false, function = false;
    size_t index = 0;  // of its stub and its slot in the table
  };

  void read_symbols() {
    for (size_t t = 0; t < sections_.size(); ++t) {
      const Elf64_Shdr& table = sections_[t];
      if (table.sh_type != SHT_SYMTAB) continue;
      if (symbol_table_ != 0) refuse("has two symbol tables");
      if (table.sh_entsize != sizeof(Elf64_Sym) || table.sh_link >= sections_.size())
        refuse("has a broken symbol table");
      symbol_table_ = t;
      for (uint64_t i = 0; i < table.sh_size / sizeof(Elf64_Sym); ++i)
        symbols_.push_back(
            read_symbol(at<Elf64_Sym>(table.sh_offset + i * sizeof(Elf64_Sym)), sections_[table.sh_link], i));
    }
  }

  Symbol read_symbol(const Elf64_Sym& s, const Elf64_Shdr& strings, size_t index) const {
    Symbol out;
    out.index = index;
    out.name = name_at(strings, s.st_name);
    out.global = ELF64_ST_BIND(s.st_info) == STB_GLOBAL;
    out.function = ELF64_ST_TYPE(s.st_info) == STT_FUNC;
    if (s.st_shndx == SHN_UNDEF || s.st_shndx >= SHN_LORESERVE) return out;
    if (s.st_shndx >= sections_.size()) refuse("a symbol is in no section", std::string(out.name));
    if (!is_loaded(s.st_shndx)) return out;
    if (s.st_value > sections_[s.st_shndx].sh_size)
      refuse("a symbol lies outside its section", std::string(out.name));
    out.address = reinterpret_cast<uint64_t>(base_) + place_[s.st_shndx] + s.st_value;
    return out;
  }

  uint64_t address_of(const Symbol& s) const {
    if (s.address) return s.address;
    for (const ExternalSymbol& e : externals_)
      if (e.name == s.name) return reinterpret_cast<uint64_t>(e.address);
    refuse("needs a symbol that kernels may not use", std::string(s.name));
  }

  /// Where a direct call to `s` goes: itself, or for an external function (which may be far away) `jmp [rip+0]; address`.
  uint64_t callable(const Symbol& s) {
    if (s.address) return s.address;
    static constexpr unsigned char jump[] = {0xff, 0x25, 0, 0, 0, 0};
    std::byte* stub = base_ + stubs_ + s.index * stub_bytes;
    const uint64_t target = address_of(s);
    std::memcpy(stub, jump, sizeof jump);
    std::memcpy(stub + sizeof jump, &target, 8);
    return reinterpret_cast<uint64_t>(stub);
  }

  uint64_t table_slot(const Symbol& s) {
    std::byte* slot = base_ + table_ + s.index * 8;
    const uint64_t target = address_of(s);
    std::memcpy(slot, &target, 8);
    return reinterpret_cast<uint64_t>(slot);
  }

  void relocate(size_t i) {
    const Elf64_Shdr& s = sections_[i];
    if (s.sh_type == SHT_REL) refuse("has relocations without addends");
    if (s.sh_type != SHT_RELA || s.sh_info >= sections_.size() || !is_loaded(s.sh_info)) return;
    if (s.sh_entsize != sizeof(Elf64_Rela) || s.sh_link != symbol_table_ || symbol_table_ == 0)
      refuse("has broken relocations");
    for (uint64_t k = 0; k < s.sh_size / sizeof(Elf64_Rela); ++k)
      apply(at<Elf64_Rela>(s.sh_offset + k * sizeof(Elf64_Rela)), s.sh_info);
  }

  void apply(const Elf64_Rela& r, size_t section) {
    const uint64_t kind = ELF64_R_TYPE(r.r_info), index = ELF64_R_SYM(r.r_info);
    if (kind == R_X86_64_NONE) return;
    if (index >= symbols_.size()) refuse("a relocation names no symbol");
    const size_t width = kind == R_X86_64_64 || kind == R_X86_64_PC64 ? 8 : 4,
                 room = sections_[section].sh_size;
    if (r.r_offset > room || room - r.r_offset < width) refuse("a relocation lies outside its section");
    std::byte* where = base_ + place_[section] + r.r_offset;
    const auto here = reinterpret_cast<uint64_t>(where), addend = static_cast<uint64_t>(r.r_addend);
    const Symbol& s = symbols_[index];
    switch (kind) {
      case R_X86_64_64: return store64(where, address_of(s) + addend);
      case R_X86_64_PC64: return store64(where, address_of(s) + addend - here);
      case R_X86_64_PC32:
        return store32(where, static_cast<int64_t>((s.function || !s.address ? callable(s) : s.address) +
                                                   addend - here));
      case R_X86_64_PLT32: return store32(where, static_cast<int64_t>(callable(s) + addend - here));
      case R_X86_64_GOTPCREL:
      case R_X86_64_GOTPCRELX:
      case R_X86_64_REX_GOTPCRELX: return store32(where, static_cast<int64_t>(table_slot(s) + addend - here));
      case R_X86_64_32S: return store32(where, static_cast<int64_t>(address_of(s) + addend));
      case R_X86_64_32: {
        const uint64_t value = address_of(s) + addend;
        if (value > std::numeric_limits<uint32_t>::max()) refuse("a relocation is out of range");
        const auto low = static_cast<uint32_t>(value);
        std::memcpy(where, &low, 4);
        return;
      }
      default: refuse("has a relocation of unknown type", std::to_string(kind));
    }
  }

  static void store64(std::byte* where, uint64_t value) { std::memcpy(where, &value, 8); }
  static void store32(std::byte* where, int64_t value) {
    if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max())
      refuse("a relocation is out of range");
    const auto low = static_cast<int32_t>(value);
    std::memcpy(where, &low, 4);
  }

  void publish(size_t i, LoadedObject& out) const {
    const Symbol& s = symbols_[i];
    const auto code = reinterpret_cast<uint64_t>(base_);
    if (s.global && s.function && s.address >= code && s.address < code + code_bytes_)
      out.symbols_.emplace(s.name, reinterpret_cast<const void*>(s.address));
  }

  static constexpr size_t unplaced = std::numeric_limits<size_t>::max();
  std::span<const std::byte> bytes_;
  std::span<const ExternalSymbol> externals_;
  std::vector<Elf64_Shdr> sections_;
  std::vector<size_t> place_;  // offset of each section in the map
  std::vector<Symbol> symbols_;
  size_t symbol_table_ = 0, stubs_ = 0, code_bytes_ = 0, table_ = 0, size_ = 0;
  std::byte* base_ = nullptr;
};

LoadedObject LoadedObject::load(std::span<const std::byte> object,
                                std::span<const ExternalSymbol> externals) {
  return ObjectReader(object, externals).read();
}

LoadedObject::LoadedObject(LoadedObject&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      symbols_(std::move(other.symbols_)) {}

LoadedObject& LoadedObject::operator=(LoadedObject&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  std::swap(symbols_, other.symbols_);
  return *this;
}

LoadedObject::~LoadedObject() {
  if (base_) munmap(base_, size_);
}

const void* LoadedObject::symbol(std::string_view name) const {
  const auto it = symbols_.find(name);
  return it == symbols_.end() ? nullptr : it->second;
}

}  // namespace espalier::target::cpu
