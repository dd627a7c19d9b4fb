#pragma once
// A program made ready for one device: its call records, those of its bodies included, are one list there, and its constants lie in
// the device's memory. Immutable; executors on that device share it.
#include "run/apart_memory.h"
#include "run/staging.h"
#include "run/wiring.h"

namespace espalier::run {

/// Addresses on a device as a table of pointers has them (run/wiring.h).
inline void* as_pointer(target::Address address) { return reinterpret_cast<void*>(address); }
inline target::Address as_address(const void* pointer) { return reinterpret_cast<target::Address>(pointer); }

/// A program or the body of one of its steps, with the numbers of its records in the executable.
struct DeviceBody {
  const Program* program = nullptr;
  std::vector<size_t>
      first_call;  ///< of each step; a step with control flow begins with a copy for each of its carries
  std::vector<void*> constants;                 ///< addresses on the device
  std::vector<std::vector<DeviceBody>> bodies;  ///< of each step
};

/// Every kernel of a program and of the bodies in it, each text once.
std::vector<target::KernelSource> kernel_sources(const Program& program);

class DeviceProgram {
 public:
  /// Loads `program` on `device`: kernels are compiled or found, constants copied. UserError: a step that only a host can run.
  /// DeviceError: from the device.
  DeviceProgram(std::shared_ptr<const Program> program, std::shared_ptr<target::Device> device);

  const Program& program() const { return *program_; }
  target::Device& device() const { return *device_; }
  const std::shared_ptr<target::Device>& shared_device() const { return device_; }
  const target::Executable& executable() const { return *executable_; }
  const DeviceBody& body() const { return body_; }
  /// What it took to load it.
  target::LoadReport load_report() const { return executable_->report(); }
  /// Launches, copies and fills of one run, a turn of each loop counted once.
  const std::vector<target::CallRecord>& calls() const { return calls_; }

 private:
  DeviceBody gather(const Program& program);
  static int64_t place_constants(DeviceBody& body, target::Address at);
  void place_apart(DeviceBody& body);
  void upload_constants(const DeviceBody& body) const;

  std::shared_ptr<const Program> program_;
  std::shared_ptr<target::Device> device_;
  std::vector<target::CallRecord> calls_;
  DeviceBody body_;
  std::unique_ptr<target::Executable> executable_;
  DeviceMemory constants_;
  ApartMemory apart_;  ///< of constants, where every buffer is an allocation
};

}  // namespace espalier::run
