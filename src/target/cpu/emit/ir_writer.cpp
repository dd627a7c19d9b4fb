#include "target/cpu/emit/ir_writer.h"

#include <bit>
#include <cstdio>

#include "base/error.h"

namespace espalier::target::cpu {
namespace {

std::string typed(const Val& v) { return v.type.text() + " " + v.name; }

std::string constant(IrType type, const std::string& element) {
  if (type.lanes == 1) return element;
  return "splat (" + type.element() + " " + element + ")";
}

}  // namespace

std::string IrType::element() const {
  if (kind == 'p') return "ptr";
  if (kind == 'i') return "i" + std::to_string(bits);
  return bits == 64 ? "double" : bits == 32 ? "float" : "half";
}

std::string IrType::text() const {
  return lanes == 1 ? element() : "<" + std::to_string(lanes) + " x " + element() + ">";
}

std::string IrType::mangled() const {
  const std::string e = kind == 'p' ? "p0" : kind + std::to_string(bits);
  return lanes == 1 ? e : "v" + std::to_string(lanes) + e;
}

Val IrWriter::integer(IrType type, int64_t value) {
  if (type.bits == 1) return {constant(type, value & 1 ? "true" : "false"), type};
  return {constant(type, std::to_string(value)), type};
}

Val IrWriter::real(IrType type, double value) {
  if (type.bits == 32) value = static_cast<float>(value);
  char text[24];
  std::snprintf(text, sizeof text, "0x%016llX",
                static_cast<unsigned long long>(std::bit_cast<uint64_t>(value)));
  return {constant(type, text), type};
}

Val IrWriter::zero(IrType type) {
  if (type.lanes > 1) return {"zeroinitializer", type};
  return {type.kind == 'f' ? "0.0" : type.kind == 'p' ? "null" : type.bits == 1 ? "false" : "0", type};
}

Val IrWriter::lane_numbers(IrType element) const {
  std::string s = "<";
  for (int i = 0; i < lanes_; ++i) s += (i ? ", " : "") + element.element() + " " + std::to_string(i);
  return {s + ">", element.with_lanes(lanes_)};
}

Val IrWriter::emit(IrType type, const std::string& text) {
  Val v = fresh(type);
  body_ += "  " + v.name + " = " + text + "\n";
  return v;
}

Val IrWriter::splat(Val a, int lanes) {
  if (a.type.lanes == lanes) return a;
  ESPALIER_CHECK(a.type.lanes == 1, "only a scalar is splatted");
  const IrType wide = a.type.with_lanes(lanes);
  if (a.name[0] != '%') return {constant(wide, a.name), wide};
  const Val first = emit(wide, "insertelement " + wide.text() + " poison, " + typed(a) + ", i32 0");
  return emit(wide, "shufflevector " + typed(first) + ", " + wide.text() + " poison, <" +
                        std::to_string(lanes) + " x i32> zeroinitializer");
}

void IrWriter::widen(Val& a, Val& b) {
  if (a.type.lanes < b.type.lanes) a = splat(std::move(a), b.type.lanes);
  if (b.type.lanes < a.type.lanes) b = splat(std::move(b), a.type.lanes);
}

Val IrWriter::binary(std::string_view op, Val a, Val b) {
  widen(a, b);
  ESPALIER_CHECK(a.type == b.type,
                 "operands of " + std::string(op) + " differ: " + a.type.text() + ", " + b.type.text());
  const std::string flags(op[0] == 'f' ? fast : "");
  return emit(a.type, std::string(op) + " " + flags + typed(a) + ", " + b.name);
}

Val IrWriter::compare(std::string_view op, std::string_view predicate, Val a, Val b) {
  widen(a, b);
  ESPALIER_CHECK(a.type == b.type, "compared types differ: " + a.type.text() + ", " + b.type.text());
  return emit(ir_i1.with_lanes(a.type.lanes),
              std::string(op) + " " + std::string(predicate) + " " + typed(a) + ", " + b.name);
}

Val IrWriter::select(Val c, Val a, Val b) {
  widen(a, b);
  if (c.type.lanes > a.type.lanes)
    a = splat(std::move(a), c.type.lanes), b = splat(std::move(b), c.type.lanes);
  ESPALIER_CHECK(a.type == b.type, "selected types differ: " + a.type.text() + ", " + b.type.text());
  return emit(a.type, "select " + typed(c) + ", " + typed(a) + ", " + typed(b));
}

Val IrWriter::fneg(Val a) { return emit(a.type, "fneg " + typed(a)); }

Val IrWriter::convert(std::string_view op, Val a, IrType element) {
  const IrType to = element.with_lanes(a.type.lanes);
  if (to == a.type) return a;
  return emit(to, std::string(op) + " " + typed(a) + " to " + to.text());
}

Val IrWriter::call(const std::string& name, IrType result, std::span<const Val> operands) {
  std::string types, values;
  for (const Val& v : operands) {
    (types += types.empty() ? "" : ", ") += v.type.text();
    (values += values.empty() ? "" : ", ") += typed(v);
  }
  const bool nothing = result.bits == 0;
  const std::string type = nothing ? "void" : result.text();
  const bool ours = name.starts_with("esp_");
  declarations_.insert("declare " + type + " @" + name + "(" + types + ")" + (ours ? " #1" : "") + "\n");
  const std::string text = "call " + type + " @" + name + "(" + values + ")";
  if (!nothing) return emit(result, text);
  body_ += "  " + text + "\n";
  return {};
}

Val IrWriter::intrinsic(std::string_view base, std::vector<Val> operands) {
  for (size_t i = 1; i < operands.size(); ++i) widen(operands[0], operands[i]);
  for (size_t i = 1; i < operands.size(); ++i) widen(operands[0], operands[i]);
  const IrType type = operands[0].type;
  return call(std::string(base) + "." + type.mangled(), type, operands);
}

Val IrWriter::call_lanes(const std::string& name, IrType result, std::span<const Val> operands) {
  int lanes = 1;
  for (const Val& v : operands) lanes = std::max(lanes, v.type.lanes);
  if (lanes == 1) return call(name, result, operands);
  Val out = {"poison", result.with_lanes(lanes)};
  for (int i = 0; i < lanes; ++i) {
    std::vector<Val> lane;
    for (const Val& v : operands) lane.push_back(v.type.lanes == 1 ? v : extract(v, i));
    out = insert(out, call(name, result, lane), i);
  }
  return out;
}

Val IrWriter::extract(const Val& v, int lane) {
  return emit(v.type.with_lanes(1), "extractelement " + typed(v) + ", i32 " + std::to_string(lane));
}

Val IrWriter::insert(const Val& v, const Val& element, int lane) {
  return emit(v.type, "insertelement " + typed(v) + ", " + typed(element) + ", i32 " + std::to_string(lane));
}

Val IrWriter::offset(Val pointer, IrType element, Val index) {
  return emit(ir_ptr.with_lanes(index.type.lanes),
              "getelementptr " + element.element() + ", " + typed(pointer) + ", " + typed(index));
}

Val IrWriter::load(Val pointer, IrType type, int align) {
  return emit(type, "load " + type.text() + ", " + typed(pointer) + ", align " + std::to_string(align));
}

void IrWriter::store(Val value, Val pointer, int align) {
  body_ += "  store " + typed(value) + ", " + typed(pointer) + ", align " + std::to_string(align) + "\n";
}

Val IrWriter::masked_load(Val pointer, IrType type, Val mask, int align) {
  return call("llvm.masked.load." + type.mangled() + ".p0", type,
              std::vector<Val>{pointer, integer(ir_i32, align), mask, zero(type)});
}

void IrWriter::masked_store(Val value, Val pointer, Val mask, int align) {
  call("llvm.masked.store." + value.type.mangled() + ".p0", {'v', 0},
       std::vector<Val>{value, pointer, integer(ir_i32, align), mask});
}

Val IrWriter::gather(Val pointers, IrType type, Val mask, int align) {
  return call("llvm.masked.gather." + type.mangled() + "." + pointers.type.mangled(), type,
              std::vector<Val>{pointers, integer(ir_i32, align), mask, zero(type)});
}

void IrWriter::scatter(Val value, Val pointers, Val mask, int align) {
  call("llvm.masked.scatter." + value.type.mangled() + "." + pointers.type.mangled(), {'v', 0},
       std::vector<Val>{value, pointers, integer(ir_i32, align), mask});
}

Val IrWriter::part(const Val& v, int first, int count) {
  if (count == 1) return extract(v, first);
  std::string order;
  for (int i = 0; i < count; ++i) order += std::string(i ? ", " : "") + "i32 " + std::to_string(first + i);
  return emit(v.type.with_lanes(count), "shufflevector " + typed(v) + ", " + v.type.text() + " poison, <" +
                                            std::to_string(count) + " x i32> <" + order + ">");
}

void IrWriter::entry_store(const Val& value, const Val& pointer, int align) {
  entry_ += "  store " + typed(value) + ", " + typed(pointer) + ", align " + std::to_string(align) + "\n";
}

Val IrWriter::slot(IrType type, int64_t count) {
  Val v = fresh(ir_ptr);
  entry_ += "  " + v.name + " = alloca " + type.text() + ", i64 " + std::to_string(count) + ", align 64\n";
  return v;
}

void IrWriter::store_slot(const Val& slot, Val value) { store(std::move(value), slot, 64); }
Val IrWriter::load_slot(const Val& slot, IrType type) { return load(slot, type, 64); }

std::string IrWriter::new_label(std::string_view hint) {
  return std::string(hint) + std::to_string(next_label_++);
}
void IrWriter::begin_block(const std::string& label) { body_ += label + ":\n"; }
void IrWriter::branch(const std::string& label) { body_ += "  br label %" + label + "\n"; }
void IrWriter::branch_if(const Val& c, const std::string& if_true, const std::string& if_false) {
  body_ += "  br i1 " + c.name + ", label %" + if_true + ", label %" + if_false + "\n";
}

void IrWriter::loop(Val begin, Val end, int64_t step, bool at_least_once,
                    const std::function<void(Val)>& body) {
  const Val counter = slot(ir_i64);
  const std::string head = new_label("loop"), done = new_label("done");
  store_slot(counter, begin);
  if (at_least_once) branch(head);
  else branch_if(icmp("slt", begin, end), head, done);
  begin_block(head);
  const Val i = load_slot(counter, ir_i64);
  body(i);
  const Val next = emit(ir_i64, "add nsw i64 " + i.name + ", " + std::to_string(step));
  store_slot(counter, next);
  branch_if(icmp("slt", next, end), head, done);
  begin_block(done);
}

void IrWriter::if_else(const Val& condition, const std::function<void()>& then,
                       const std::function<void()>& otherwise) {
  const std::string yes = new_label("then"), no = new_label("else"), done = new_label("endif");
  branch_if(condition, yes, otherwise ? no : done);
  begin_block(yes);
  then();
  branch(done);
  if (otherwise) {
    begin_block(no);
    otherwise();
    branch(done);
  }
  begin_block(done);
}

void IrWriter::begin_function(const std::string& signature) {
  signature_ = signature;
  entry_.clear();
  body_.clear();
}

void IrWriter::end_function() {
  functions_ += "define " + signature_ + " {\nentry:\n" + entry_ + body_ + "  ret void\n}\n";
}

std::string IrWriter::module_text() const {
  std::string s;
  for (const std::string& d : declarations_) s += d;
  return s + functions_;
}

}  // namespace espalier::target::cpu
