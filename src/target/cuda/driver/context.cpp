#include "target/cuda/driver/context.h"

#include <fmt/format.h>

#include "target/cuda/driver/device_list.h"

namespace espalier::target::cuda::driver {

namespace {

/// What may be done about it; "" where the driver's words say all.
std::string advice(CuResult error) {
  switch (error) {
    case cu_error_device_unavailable:
      return "a device that no other process holds alone (its compute mode may be exclusive process)";
    case cu_error_no_device:
    case cu_error_invalid_device: return "a device that `espalier devices` lists";
    default: return "";
  }
}

}  // namespace

bool is_lasting(CuResult error) {
  switch (error) {
    case cu_error_ecc_uncorrectable:
    case cu_error_nvlink_uncorrectable:
    case cu_error_contained:
    case cu_error_illegal_address:
    case cu_error_launch_timeout:
    case cu_error_context_is_destroyed:
    case cu_error_assert:
    case cu_error_tensor_memory_leak:
    case cu_error_mps_client_terminated:
    case cu_error_external_device:
    case cu_error_unknown: return true;
    default: return error >= cu_error_hardware_stack && error <= cu_error_launch_failed;
  }
}

Context::Context(const CuApi& cu, int index) : cu_(cu), device_name_(fmt::format("cuda:{}", index)) {
  if (const CuResult error = cu_.Init(0); error != cu_success) refuse("cuInit", error, "");
  check("cuDeviceGet", cu_.DeviceGet(&device_, index));
  char name[256] = "";
  check("cuDeviceGetName", cu_.DeviceGetName(name, static_cast<int>(sizeof name), device_));
  kind_ = name;
  device_name_ += fmt::format(" ({})", name);
  check("cuDevicePrimaryCtxRetain", cu_.DevicePrimaryCtxRetain(&context_, device_));
}

Context::~Context() { cu_.DevicePrimaryCtxRelease(device_); }

/// Where it fails there is nobody to tell; an error that lasts is said by the next call.
void Context::pop(const Context* before) const noexcept {
  inside_ = before;
  CuContext left = nullptr;
  note("cuCtxPopCurrent", cu_.CtxPopCurrent(&left));
}

void Context::note(const char* name, CuResult error) const noexcept {
  if (!is_lasting(error)) return;
  try {
    const std::lock_guard lock(loss_);
    if (lost_.load(std::memory_order_relaxed)) return;
    reason_ = fmt::format("{} failed with {}", name, error_text(cu_, error));
  } catch (const std::bad_alloc&) {
    reason_.clear();
  }
  lost_.store(true, std::memory_order_release);
}

void Context::fail_lost(const char* name) const {
  const std::lock_guard lock(loss_);
  throw DeviceError({fmt::format("device {}, {}", device_name_, name), "the device is lost", reason_,
                     "a new process; the error may come from work that was given to the device before"},
                    true);
}

void Context::fail(const char* name, CuResult error, const std::string& got) const {
  note(name, error);
  if (is_lasting(error)) fail_lost(name);
  refuse(name, error, got);
}

void Context::refuse(const char* name, CuResult error, const std::string& got) const {
  ErrorFields fields{fmt::format("device {}, {}", device_name_, name), error_text(cu_, error), got,
                     advice(error)};
  if (error == cu_error_out_of_memory) throw OutOfMemory(std::move(fields));
  throw DeviceError(std::move(fields), false);
}

void Context::fail_lacking(const char* name) const {
  int version = 0;
  cu_.DriverGetVersion(&version);
  throw DeviceError({fmt::format("device {}, {}", device_name_, name), "the driver lacks this function",
                     "a driver for CUDA " + cuda_version(version), "a newer driver"},
                    false);
}

}  // namespace espalier::target::cuda::driver
