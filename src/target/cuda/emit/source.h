#pragma once
// Text of a kernel as it grows: indented lines and blocks.
#include <string>
#include <string_view>

namespace espalier::target::cuda {

class Source {
 public:
  explicit Source(size_t depth) : depth_(depth) {}
  void line(std::string_view text) { text_.append(2 * depth_, ' ').append(text).append("\n"); }
  /// "HEAD {" and deeper, until close().
  void open(std::string_view head) {
    line(std::string(head) + (head.empty() ? "{" : " {"));
    ++depth_;
  }
  void close() {
    --depth_;
    line("}");
  }
  void pragma(std::string_view text) { text_.append(text).append("\n"); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  size_t depth_;
};

}  // namespace espalier::target::cuda
