#pragma once
// What a kernel's PTX reads and writes in global memory: through which of its parameters, how many bytes at a time.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::test {

struct PtxAccess {
  std::set<int> parameters;  ///< of which the address is made
  bool store = false;
  int bytes = 0;
  std::string text;
};

/// PTX of one kernel, read line by line; what holds an address is followed from the parameters through every instruction but loads.
class Ptx {
 public:
  explicit Ptx(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      read(text.substr(at, end - at));
      at = end + 1;
    }
    for (bool changed = true; changed;) {  // loops come back to what is defined later
      changed = false;
      for (const Line& l : lines_) changed = follow(l) || changed;
    }
  }

  /// Threads of a block at most, as .maxntid says; 0: it does not say.
  int max_threads() const { return max_threads_; }

  std::vector<PtxAccess> accesses() const {
    std::vector<PtxAccess> out;
    for (const Line& l : lines_) {
      const bool store = l.op.starts_with("st."), load = l.op.starts_with("ld.");
      if (!store && !load) continue;
      if (l.op.find(".shared") != std::string::npos || l.op.find(".param") != std::string::npos ||
          l.op.find(".local") != std::string::npos || l.op.find(".const") != std::string::npos)
        continue;
      PtxAccess a{.parameters = {}, .store = store, .bytes = bytes_of(l.op), .text = l.op};
      for (const std::string& r : registers(std::string_view(l.rest).substr(l.rest.find('['))))
        if (const auto it = holds_.find(r); it != holds_.end())
          a.parameters.insert(it->second.begin(), it->second.end());
      out.push_back(std::move(a));
    }
    return out;
  }

 private:
  struct Line {
    std::string op, rest;
  };

  static bool is_of_name(char c) { return c == '_' || c == '$' || c == '.' || std::isalnum(c) != 0; }

  static int number(std::string_view text) {
    int n = 0;
    std::from_chars(text.data(), text.data() + text.size(), n);
    return n;
  }

  /// "%rd12" and on, in order.
  static std::vector<std::string> registers(std::string_view text) {
    std::vector<std::string> out;
    for (size_t at = text.find('%'); at != std::string_view::npos; at = text.find('%', at + 1)) {
      size_t end = at + 1;
      while (end < text.size() && is_of_name(text[end])) ++end;
      out.emplace_back(text.substr(at, end - at));
    }
    return out;
  }

  /// "ld.global.nc.v4.f32" -> 16.
  static int bytes_of(std::string_view op) {
    int lanes = 1, bits = 0;
    for (size_t at = op.find('.'); at != std::string_view::npos; at = op.find('.', at + 1)) {
      const std::string_view part = op.substr(at + 1, op.find('.', at + 1) - at - 1);
      if (part.size() < 2 || part.size() > 4) continue;
      if (part[0] == 'v') lanes = number(part.substr(1));
      if (std::string_view("bufs").find(part[0]) != std::string_view::npos && std::isdigit(part[1]) != 0)
        bits = number(part.substr(1));
    }
    return lanes * bits / 8;
  }

  void read(std::string_view line) {
    if (const size_t at = line.find(".maxntid"); at != std::string_view::npos)
      max_threads_ = number(line.substr(line.find_first_of("0123456789", at)));
    size_t at = line.find_first_not_of(" \t{");
    if (at == std::string_view::npos) return;
    if (line[at] == '@')
      at = std::min(line.find_first_not_of(" \t", line.find_first_of(" \t", at)), line.size());
    if (at >= line.size() || std::isalpha(line[at]) == 0) return;
    const size_t end = line.find_first_of(" \t", at);
    if (end == std::string_view::npos) return;
    lines_.push_back({std::string(line.substr(at, end - at)), std::string(line.substr(end))});
  }

  /// Is something new known of what the line defines?
  bool follow(const Line& l) {
    if (l.op.starts_with("st.") || (l.op.starts_with("ld.") && !l.op.starts_with("ld.param"))) return false;
    const std::vector<std::string> all = registers(l.rest);
    if (all.empty()) return false;
    std::set<int> found;
    if (const size_t at = l.rest.rfind("_param_"); l.op.starts_with("ld.param") && at != std::string::npos)
      found.insert(number(std::string_view(l.rest).substr(at + 7)));
    for (size_t i = 1; i < all.size(); ++i)
      if (const auto it = holds_.find(all[i]); it != holds_.end())
        found.insert(it->second.begin(), it->second.end());
    if (found.empty()) return false;
    std::set<int>& held = holds_[all[0]];
    const size_t before = held.size();
    held.insert(found.begin(), found.end());
    return held.size() > before;
  }

  std::vector<Line> lines_;
  std::map<std::string, std::set<int>> holds_;  // register -> parameters
  int max_threads_ = 0;
};

}  // namespace espalier::test
