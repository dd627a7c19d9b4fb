#pragma once
// Writes LLVM IR text: typed values, instructions, blocks, loops. A value is one lane (a scalar) or a vector; an operation on
// both splats the scalar. Loop-carried state lives in stack slots, which SROA turns into registers.
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::target::cpu {

/// An element type and a number of lanes (1: a scalar). Kinds: 'i' integer, 'f' float, 'p' pointer.
struct IrType {
  char kind = 'i';
  int bits = 64;
  int lanes = 1;
  std::string element() const;
  std::string text() const;     ///< "<16 x float>"
  std::string mangled() const;  ///< "v16f32", as intrinsics name it
  IrType with_lanes(int n) const { return {kind, bits, n}; }
  bool operator==(const IrType&) const = default;
};
inline constexpr IrType ir_i1{'i', 1}, ir_i8{'i', 8}, ir_i16{'i', 16}, ir_i32{'i', 32}, ir_i64{'i', 64},
    ir_f16{'f', 16}, ir_f32{'f', 32}, ir_f64{'f', 64}, ir_ptr{'p', 64};

/// An SSA name or a constant, with its type.
struct Val {
  std::string name;
  IrType type;
  explicit operator bool() const { return !name.empty(); }
};

class IrWriter {
 public:
  explicit IrWriter(int lanes) : lanes_(lanes) {}
  /// Lanes of the kernel's vectors.
  int lanes() const { return lanes_; }

  // Constants.
  static Val integer(IrType type, int64_t value);
  static Val real(IrType type, double value);  ///< rounded to the type
  static Val zero(IrType type);
  /// <0, 1, 2, ...> of i64 or i32 lanes.
  Val lane_numbers(IrType element) const;

  // Instructions. Operands are made equally wide.
  Val binary(std::string_view op, Val a, Val b);
  Val compare(std::string_view op, std::string_view predicate, Val a, Val b);
  Val icmp(std::string_view predicate, Val a, Val b) {
    return compare("icmp", predicate, std::move(a), std::move(b));
  }
  Val fcmp(std::string_view predicate, Val a, Val b) {
    return compare("fcmp", predicate, std::move(a), std::move(b));
  }
  Val select(Val condition, Val a, Val b);
  Val fneg(Val a);
  /// trunc, zext, sext, fptosi, sitofp, uitofp, fpext, fptrunc, bitcast to elements of `element`.
  Val convert(std::string_view op, Val a, IrType element);
  /// Intrinsic `base` ("llvm.fma"), overloaded on the type of the first operand, element by element.
  Val intrinsic(std::string_view base, std::vector<Val> operands);
  /// Any function: declared on first use.
  Val call(const std::string& name, IrType result, std::span<const Val> operands);
  /// A scalar function applied to every lane.
  Val call_lanes(const std::string& name, IrType result_element, std::span<const Val> operands);
  Val splat(Val a, int lanes);
  Val extract(const Val& vector, int lane);
  Val insert(const Val& vector, const Val& element, int lane);

  // Memory. `align` in bytes.
  Val offset(Val pointer, IrType element,
             Val index);  ///< index: a scalar, or a vector for a gather's addresses
  Val load(Val pointer, IrType type, int align);
  void store(Val value, Val pointer, int align);
  Val masked_load(Val pointer, IrType type, Val mask, int align);
  void masked_store(Val value, Val pointer, Val mask, int align);
  Val gather(Val pointers, IrType type, Val mask, int align);
  void scatter(Val value, Val pointers, Val mask, int align);
  /// Lanes [first, first + count) of a vector; one lane is a scalar.
  Val part(const Val& vector, int first, int count);
  /// A store in the function's entry, before everything.
  void entry_store(const Val& value, const Val& pointer, int align);
  /// A slot of `type` in the function's entry.
  Val slot(IrType type, int64_t count = 1);
  void store_slot(const Val& slot, Val value);
  Val load_slot(const Val& slot, IrType type);

  // Control.
  std::string new_label(std::string_view hint);
  void begin_block(const std::string& label);
  void branch(const std::string& label);
  void branch_if(const Val& condition, const std::string& if_true, const std::string& if_false);
  /// for (i = begin; i < end; i += step) body(i); with `at_least_once`, the first test is left out.
  void loop(Val begin, Val end, int64_t step, bool at_least_once, const std::function<void(Val)>& body);
  void if_else(const Val& condition, const std::function<void()>& then,
               const std::function<void()>& otherwise = nullptr);

  // Functions.
  void begin_function(const std::string& signature);  ///< "void @f(ptr %a) #0"
  void end_function();
  void raw(std::string_view line) { (body_ += "  ").append(line) += "\n"; }
  /// Make sure that the module has this line ("declare ...").
  void declare(const std::string& line) { declarations_.insert(line + "\n"); }
  Val fresh(IrType type) { return {"%v" + std::to_string(next_++), type}; }
  /// Functions and declarations so far.
  std::string module_text() const;

  /// Multiplications and additions may be contracted to fma; nothing else is relaxed.
  static constexpr std::string_view fast = "contract ";

 private:
  void widen(Val& a, Val& b);
  Val emit(IrType type, const std::string& text);

  int lanes_;
  int64_t next_ = 0, next_label_ = 0;
  std::string signature_, entry_, body_, functions_;
  std::set<std::string> declarations_;
};

}  // namespace espalier::target::cpu
