#include "run/executor.h"

#include <algorithm>
#include <cstring>

#include "base/align.h"
#include "base/clock.h"
#include "base/text.h"
#include "base/threads.h"
#include "run/red_zones.h"

namespace espalier::run {

Executor::Executor(Executor&&) noexcept = default;
Executor& Executor::operator=(Executor&&) noexcept = default;
Executor::~Executor() = default;

Executor::Executor(std::shared_ptr<const Program> program, ExecutorOptions options)
    : program_(std::move(program)), options_(options), wiring_(*program_), bindings_(*program_) {
  const Program& p = *program_;
  inputs_.assign(p.inputs().size(), nullptr);
  outputs_.assign(p.outputs().size(), nullptr);

  // One allocation: the arena, then outputs, then inputs and state.
  int64_t bytes = whole_lines(p.memory().arena);
  const auto reserve = [&](int64_t size) {
    return std::exchange(bytes, bytes + whole_lines(std::max<int64_t>(size, 1)));
  };
  std::vector<int64_t> input_at(inputs_.size(), -1), output_at(outputs_.size(), -1);
  for (size_t o = 0; o < outputs_.size(); ++o)
    if (!p.is_state_output(o) && options_.own_outputs) output_at[o] = reserve(p.outputs()[o].bytes());
  output_bytes_ = bytes;
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (p.is_state_input(i) ? options_.own_state : options_.own_inputs)
      input_at[i] = reserve(p.inputs()[i].bytes());
  memory_ = Memory(bytes + 64);  // a vector load at the end stays inside

  pointers_.assign(wiring_.pointers(), nullptr);
  wiring_.wire(pointers_.data(), memory_.data());
  calls_ = wiring_.calls(pointers_.data(), memory_.data());
  unbound_ = inputs_.size() + outputs_.size();
  for (const State& s : p.state())
    unbound_ -= p.state_input(static_cast<size_t>(s.output)) == s.input ? 1 : 0;
  for (size_t o = 0; o < outputs_.size(); ++o)
    if (output_at[o] >= 0) set_output(o, memory_.data() + output_at[o]);
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (input_at[i] >= 0) set_input(i, memory_.data() + input_at[i]);
  checks_ = range_checks(p);
}

void Executor::set_input(size_t i, void* data) {
  if (!inputs_[i]) --unbound_;
  inputs_[i] = data;
  wiring_.bind_input(pointers_.data(), i, data);
  if (!program_->is_state_input(i)) return;
  for (size_t o = 0; o < outputs_.size(); ++o)
    if (program_->state_input(o) == static_cast<int>(i)) outputs_[o] = data;
}

void Executor::set_output(size_t o, void* data) {
  if (!outputs_[o]) --unbound_;
  outputs_[o] = data;
  wiring_.bind_output(pointers_.data(), o, data);
}

namespace {

uint64_t as_number(const void* p) { return reinterpret_cast<uintptr_t>(p); }

/// What is bound of memory that was checked: that of an empty tensor may be null, which means unbound.
void* bound(const void* data) {
  alignas(cache_line) static char nothing[cache_line];
  return data ? const_cast<void*>(data) : nothing;
}

}  // namespace

void Executor::bind_input(size_t i, const void* data) {
  ESPALIER_CHECK(i < inputs_.size(), "input number out of range");
  check_binding(program_->inputs()[i], "input", as_number(data));
  bindings_.changed(i);
  set_input(i, bound(data));
}

void Executor::bind_output(size_t o, void* data) {
  ESPALIER_CHECK(o < outputs_.size(), "output number out of range");
  check_output_binding(*program_, o, as_number(data));
  bindings_.changed(bindings_.place_of_output(o));
  set_output(o, bound(data));
}

void* Executor::state(std::string_view name) const { return inputs_[program_->state_index(name)]; }

void Executor::bind_state(std::string_view name, void* data) {
  const size_t i = program_->state_index(name);
  check_binding(program_->inputs()[i], "state", as_number(data));
  bindings_.changed(i);
  set_input(i, bound(data));
}

void Executor::fail_unbound() const {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (!inputs_[i])
      throw UserError(
          {"input " + program_->inputs()[i].name, "is not bound to memory", "", "bind it before run()"});
  for (size_t o = 0; o < outputs_.size(); ++o)
    if (!outputs_[o])
      throw UserError(
          {"output " + program_->outputs()[o].name, "is not bound to memory", "", "bind it before run()"});
  ESPALIER_CHECK(false, "nothing is unbound");
  __builtin_unreachable();
}

/// Where a place of `bindings_` lies; 0 for the output of a state, which is the state's.
uint64_t Executor::bound_at(size_t place) const {
  if (place < inputs_.size()) return as_number(inputs_[place]);
  const size_t o = place - inputs_.size();
  return program_->is_state_output(o) ? 0 : as_number(outputs_[o]);
}

void Executor::start() {
  if (unbound_) [[unlikely]]
    fail_unbound();
  bindings_.check(*program_, [&](size_t place) { return bound_at(place); });
  for (const RangeCheck& c : checks_) c(inputs_[c.input], program_->inputs()[c.input].name);
}

void Executor::run() {
  start();
  const PoolScope pool(options_.parallel);
  for (const Call& call : calls_) run::run(call);
}

void Executor::run_timed(std::span<int64_t> step_ns) {
  ESPALIER_CHECK(step_ns.size() == calls_.size(), "one time per step");
  start();
  const PoolScope pool(options_.parallel);
  int64_t before = now_ns();
  for (size_t i = 0; i < calls_.size(); ++i) {
    run::run(calls_[i]);
    const int64_t after = now_ns();
    step_ns[i] = after - before;
    before = after;
  }
}

void Executor::poison() {
  if (output_bytes_ > 0) std::memset(memory_.data(), red_zone_byte, static_cast<size_t>(output_bytes_));
}

void Executor::check_red_zones() const { run::check_red_zones(*program_, memory_.data()); }

}  // namespace espalier::run
