#include "tensor/parameter.h"

#include <algorithm>
#include <cstring>

#include "tensor/tracing.h"

namespace espalier {

namespace {

thread_local Tracing* active = nullptr;

}  // namespace

Parameter::Parameter(Array initial, bool trainable, std::string name) : cell_(std::make_shared<Cell>()) {
  cell_->name = std::move(name);
  cell_->trainable = trainable;
  cell_->elements = std::make_shared<run::Elements>(initial);
}

namespace {
Parameter::Cell& checked(Parameter::Cell* cell) {
  if (!cell) throw UserError({"parameter", "is empty", "", "a parameter with a value"});
  return *cell;
}
}  // namespace

Tensor Parameter::tensor() const {
  Cell& c = checked(cell());
  if (active) return active->read(*this);
  // Programs write into the storage: only a comparison tells whether its elements are those of the last read.
  const std::lock_guard lock(c.mutex);
  const Array& now = c.elements->read();
  if (std::shared_ptr<TensorAccess::Impl> last = c.read.lock();
      last && std::memcmp(last->data->data(), now.data(), static_cast<size_t>(now.bytes())) == 0)
    return TensorAccess::wrap(std::move(last));
  Tensor t(now.copied());
  TensorAccess::set_parameter(t, cell_);
  c.read = TensorAccess::impl(t);
  return t;
}

void Parameter::assign(const Tensor& value) const {
  Cell& c = checked(cell());
  const ir::Type wanted = type(), got{value.dtype(), value.dims()};
  if (got != wanted)
    throw UserError({"parameter " + c.name, "assigned a value of another type", got.text(), wanted.text()});
  if (active) {
    active->assign(*this, value);
    return;
  }
  const Array& a = value.array();
  std::memcpy(c.elements->replace(), a.data(), static_cast<size_t>(a.bytes()));
}

const std::string& Parameter::name() const { return checked(cell()).name; }
void Parameter::set_name(std::string name) const { checked(cell()).name = std::move(name); }
bool Parameter::trainable() const { return checked(cell()).trainable; }
void Parameter::set_trainable(bool trainable) const { checked(cell()).trainable = trainable; }
ir::Type Parameter::type() const { return checked(cell()).elements->host().type(); }
const std::vector<int64_t>& Parameter::dims() const { return checked(cell()).elements->host().dims(); }
const Array& Parameter::storage() const { return checked(cell()).elements->read(); }
void* Parameter::write() const { return checked(cell()).elements->write(); }

std::string join_path(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

Tracing::Tracing(bool freeze, std::vector<std::string> arguments, std::vector<std::string> results)
    : freeze_(freeze), arguments_(std::move(arguments)), results_(std::move(results)) {
  if (active)
    throw UserError(
        {"trace", "a function is being traced already on this thread", "", "one trace at a time"});
  active = this;
}
Tracing::~Tracing() { active = nullptr; }
Tracing* Tracing::current() { return active; }

std::string Tracing::unique_name(const Parameter& p) const {
  std::string base = p.name().empty() ? "parameter" : p.name();
  const auto among = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto used = [&](const std::string& name) {
    return among(arguments_, name) || among(results_, next_name(name)) ||
           std::any_of(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.input == name; });
  };
  if (!used(base)) return base;
  for (int i = 1;; ++i)
    if (std::string name = base + "." + std::to_string(i); !used(name)) return name;
}

Tracing::Entry& Tracing::entry(const Parameter& p) {
  for (Entry& e : entries_)
    if (e.parameter == p) return e;
  Entry e;
  e.parameter = p;
  e.input = unique_name(p);
  if (freeze_) {
    e.now = Tensor::from(ir::constant(p.storage().copied(), e.input), std::span<const Tensor>());
  } else {
    e.old = ir::new_input(e.input, p.type());
    e.now = Tensor::from(e.old, std::span<const Tensor>());
  }
  TensorAccess::set_parameter(e.now, p.cell_);
  entries_.push_back(std::move(e));
  return entries_.back();
}

Tensor Tracing::read(const Parameter& p) { return entry(p).now; }

void Tracing::assign(const Parameter& p, const Tensor& value) {
  if (freeze_)
    throw UserError({"parameter " + p.name(), "assigned inside a function compiled with frozen parameters",
                     "", "freeze = false"});
  Entry& e = entry(p);
  e.now = Tensor::from(value.value(), {value});
  TensorAccess::set_parameter(e.now, p.cell_);
  e.assigned = true;
}

int64_t Tracing::draw(const Parameter& counter) {
  if (freeze_)
    throw UserError({"generator", "drawn from inside a function compiled with frozen parameters", "",
                     "freeze = false, or evaluation mode"});
  if (std::find(counters_.begin(), counters_.end(), counter) == counters_.end()) counters_.push_back(counter);
  return draws_++;
}

void Tracing::advance_counters() {
  for (const Parameter& c : counters_) assign(c, read(c) + Tensor(Array::of<int64_t>({}, {1})));
}

}  // namespace espalier
