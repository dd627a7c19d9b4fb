#include "run/device_program.h"

#include <algorithm>
#include <set>

#include "run/record_needs.h"

namespace espalier::run {

using target::Address;
using target::CallRecord;

namespace {

constexpr int64_t constant_alignment = 256;

void add_sources(const Program& program, std::set<std::string_view>& names,
                 std::vector<target::KernelSource>& all) {
  for (const Step& step : program.steps()) {
    if (step.kernel)
      for (const target::KernelSource& source : step.kernel->sources())
        if (names.insert(source.name).second) all.push_back(source);
    for (const auto& body : step.bodies) add_sources(*body, names, all);
  }
}

}  // namespace

std::vector<target::KernelSource> kernel_sources(const Program& program) {
  std::vector<target::KernelSource> all;
  std::set<std::string_view> names;
  add_sources(program, names, all);
  return all;
}

DeviceProgram::DeviceProgram(std::shared_ptr<const Program> program, std::shared_ptr<target::Device> device)
    : program_(std::move(program)), device_(std::move(device)) {
  body_ = gather(*program_);
  executable_ = device_->load(kernel_sources(*program_), calls_);
  if (program_->apart()) {
    apart_ = ApartMemory(*device_, program_->offsets());
    place_apart(body_);
  } else if (const int64_t bytes = place_constants(body_, 0); bytes > 0) {
    constants_ = device_memory(*device_, bytes);
    place_constants(body_, constants_.get());
  }
  upload_constants(body_);
}

/// Every record, in the order of the steps.
DeviceBody DeviceProgram::gather(const Program& program) {
  DeviceBody body{.program = &program, .first_call = {}, .constants = {}, .bodies = {}};
  for (const Step& step : program.steps()) {
    if (!step.kernel->on_device() && step.bodies.empty())
      throw UserError({"op " + step.op, "its kernel runs on the host only", std::string(step.kernel->name()),
                       "a program that was compiled for a device"});
    body.first_call.push_back(calls_.size());
    for (const int64_t bytes : step.control.carry_bytes)
      calls_.push_back({target::CopyCall{bytes}, {{0, 0}, {1, 0}}, {.bytes = 2 * bytes}});
    const auto calls = step.kernel->calls();
    calls_.insert(calls_.end(), calls.begin(), calls.end());
    body.bodies.emplace_back();
    for (const auto& inner : step.bodies) body.bodies.back().push_back(gather(*inner));
  }
  return body;
}

/// Constants of `body` and of the bodies within from `at` on; the address behind them.
int64_t DeviceProgram::place_constants(DeviceBody& body, Address at) {
  const Address first = at;
  body.constants.clear();
  for (const ir::Array& c : body.program->constants()) {
    body.constants.push_back(as_pointer(at));
    at += static_cast<Address>(round_up(std::max<int64_t>(c.bytes(), 1), constant_alignment));
  }
  for (auto& bodies : body.bodies)
    for (DeviceBody& inner : bodies) at += static_cast<Address>(place_constants(inner, at));
  return static_cast<int64_t>(at - first);
}

void DeviceProgram::place_apart(DeviceBody& body) {
  const BufferNeeds needs = needs_of(*body.program);
  for (size_t c = 0; c < needs.constants.size(); ++c)
    body.constants.push_back(
        as_pointer(apart_.place(body.program->constants()[c].bytes(), needs.constants[c])));
  for (auto& bodies : body.bodies)
    for (DeviceBody& inner : bodies) place_apart(inner);
}

void DeviceProgram::upload_constants(const DeviceBody& body) const {
  for (size_t i = 0; i < body.constants.size(); ++i) {
    const ir::Array& c = body.program->constants()[i];
    upload_and_wait(*device_, as_address(body.constants[i]), c.data(), c.bytes());
  }
  for (const auto& bodies : body.bodies)
    for (const DeviceBody& inner : bodies) upload_constants(inner);
}

}  // namespace espalier::run
