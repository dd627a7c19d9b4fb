#pragma once
// cuDNN's descriptors, and the operation graph of a convolution made of them.
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "target/conv_call.h"
#include "target/cuda/driver/tables/dnn.h"

namespace espalier::target::cuda::driver {

/// What cuDNN answered to a call, and why as far as it says.
class DnnError : public std::runtime_error {
 public:
  DnnError(const DnnApi& api, std::string_view what, DnnStatus status);
  DnnStatus status() const { return status_; }

 private:
  DnnStatus status_;
};

/// One descriptor, destroyed at the end. Every member throws DnnError where cuDNN does not do it.
class DnnObject {
 public:
  DnnObject(const DnnApi& api, DnnKind kind);
  DnnObject(DnnObject&& other) noexcept
      : api_(other.api_), descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  DnnObject& operator=(DnnObject&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~DnnObject();
  DnnDescriptor get() const { return descriptor_; }

  DnnObject& set(DnnAttribute name, int64_t value) { return set(name, DnnType::int64, 1, &value); }
  DnnObject& set(DnnAttribute name, std::span<const int64_t> values) {
    return set(name, DnnType::int64, static_cast<int64_t>(values.size()), values.data());
  }
  DnnObject& set(DnnAttribute name, bool value) { return set(name, DnnType::boolean, 1, &value); }
  DnnObject& set(DnnAttribute name, DnnDtype value) { return set(name, DnnType::dtype, 1, &value); }
  DnnObject& set(DnnAttribute name, std::string_view text) {
    return set(name, DnnType::character, static_cast<int64_t>(text.size()), text.data());
  }
  DnnObject& set(DnnAttribute name, DnnHandle handle) { return set(name, DnnType::handle, 1, &handle); }
  DnnObject& set(DnnAttribute name, const DnnObject& other) {
    return set(name, DnnType::descriptor, 1, &other.descriptor_);
  }
  DnnObject& set(DnnAttribute name, DnnType type, int64_t count, const void* values);
  DnnObject& finalize();

  /// How many values an attribute has, and as many of them as there is room for.
  int64_t count(DnnAttribute name, DnnType type) const;
  int64_t get(DnnAttribute name, DnnType type, int64_t room, void* values) const;
  int64_t get_int64(DnnAttribute name) const;
  std::string get_text(DnnAttribute name) const;

 private:
  const DnnApi* api_;
  DnnDescriptor descriptor_ = nullptr;
};

/// The id of operand `operand` of a record in its graph.
constexpr int64_t dnn_tensor_id(int operand) { return operand + 1; }

/// The graph of `call`: the convolution, then an operation for each step. With `handle` for that one's device, else for the device that
/// a plan is made for.
DnnObject conv_graph(const DnnApi& api, const ConvCall& call, DnnHandle handle = nullptr);

}  // namespace espalier::target::cuda::driver
