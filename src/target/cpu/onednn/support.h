#pragma once
// What the calls share: the library's engine, threads, bound primitives. Included only by the .cpp files of this folder.
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>

#include "base/align.h"
#include "target/cpu/onednn/call.h"

namespace espalier::target::cpu::onednn {

/// The CPU engine; its instruction set is cut to that of cpu_features().
const dnnl::engine& engine();

dnnl::memory::data_type data_type(ir::Dtype dtype);

/// Within this scope the library sees a team of `threads`: primitives made here are blocked for that many, and calls made here
/// use as many (one inside a pool thread). A scope of one thread also runs a primitive that was made for more on one.
class TeamScope {
 public:
  explicit TeamScope(int threads);
  ~TeamScope();
  TeamScope(const TeamScope&) = delete;
  TeamScope& operator=(const TeamScope&) = delete;

 private:
  int threads_before_, levels_before_;
};

inline int64_t bytes_of(const dnnl::memory::desc& desc) { return static_cast<int64_t>(desc.get_size()); }
inline std::byte* at(const void* base, int64_t offset) {
  return static_cast<std::byte*>(const_cast<void*>(base)) + offset;
}

/// A primitive with the descriptions of its arguments; run() takes their addresses in the same order.
class Step {
 public:
  struct Argument {
    int id;
    dnnl::memory::desc desc;
  };
  Step() = default;
  Step(dnnl::primitive primitive, std::vector<Argument> arguments, const dnnl::memory::desc& scratch);
  explicit operator bool() const { return static_cast<bool>(primitive_); }
  int64_t scratch_bytes() const { return scratch_bytes_; }
  void run(std::span<const void* const> pointers, void* scratch) const;

 private:
  struct Binding;
  struct Bindings;
  std::unique_ptr<Binding> make_binding() const;
  std::unique_ptr<Binding> take() const;
  dnnl::primitive primitive_;
  std::vector<Argument> arguments_;
  int64_t scratch_bytes_ = 0;
  std::shared_ptr<Bindings> bindings_;  ///< memory objects of runs that are not under way
};

/// Copy `from` into the layout and dtype `to`; empty where they are equal.
Step reorder(const dnnl::memory::desc& from, const dnnl::memory::desc& to);

/// Does it read a vector with an entry per channel?
bool reads_channels(Post post);

/// Attributes with scratch given by the caller and these post-operations; a channel vector has shape `channel_dims`.
dnnl::primitive_attr attributes(std::span<const Post> posts, const dnnl::memory::dims& channel_dims);

/// Appends what `posts` reads to the arguments of a step.
void append_post_arguments(std::span<const Post> posts, const dnnl::memory::dims& channel_dims,
                           std::vector<Step::Argument>& arguments);

/// Is this the library's slow reference code?
bool is_reference(std::string_view implementation);

/// A name for a layout: equal names mean equal bytes for equal elements.
std::string layout_name(const dnnl::memory::desc& desc);

/// Copy `rows` runs of `bytes`, `pitch` apart on both sides.
void copy_rows(const void* from, void* to, int64_t rows, int64_t bytes, int64_t pitch);

/// Sizes of a fixed cut of 0..total in about `parts` ranges of a multiple of `unit` (the last may be shorter).
struct Cut {
  int64_t size = 0, count = 0;
};
Cut cut(int64_t total, int64_t parts, int64_t unit);

}  // namespace espalier::target::cpu::onednn
