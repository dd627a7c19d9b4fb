// The elementary functions of the port header: the CPU's bits where the method is the CPU's, within ulp of the exact value
// everywhere, without a stack on any architecture.
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "support/functions.h"
#include "support/nvrtc.h"
#include "target/cuda/sim/kernel_library.h"

namespace espalier::target::cuda {
namespace {

using ir::Dtype;
using ir::ScalarCode;

KernelSource kernel_of(const std::string& name, const std::string& type, int operands,
                       const std::string& value) {
  std::string parameters;
  for (int i = 0; i < operands; ++i)
    parameters += "const " + type + "* __restrict__ x" + std::to_string(i) + ", ";
  return {name,
          "K_KERNEL(" + name + ", 256)(" + parameters + type +
              "* __restrict__ y, const int* __restrict__ n) {\n" +
              "  const int i = blockIdx.x * 256 + threadIdx.x;\n  if (i < *n) y[i] = " + value + ";\n}\n",
          256, false};
}

/// The functions of the port, with what their bits are compared to.
struct PortFunction {
  ScalarCode code;
  const char* call;
  bool as_cpu;  ///< the same bits as the CPU's
};
const PortFunction port_functions[] = {
    {ScalarCode::exp, "esp_exp(x0[i])", true},       {ScalarCode::expm1, "esp_expm1(x0[i])", true},
    {ScalarCode::log, "esp_log(x0[i])", true},       {ScalarCode::log1p, "esp_log1p(x0[i])", true},
    {ScalarCode::tanh, "esp_tanh(x0[i])", true},     {ScalarCode::erf, "esp_erf(x0[i])", true},
    {ScalarCode::sin, "esp_sin(x0[i])", true},       {ScalarCode::cos, "esp_cos(x0[i])", true},
    {ScalarCode::tan, "esp_tan(x0[i])", false},      {ScalarCode::atan, "esp_atan(x0[i])", false},
    {ScalarCode::rsqrt, "1.0f / sqrtf(x0[i])", true}};

std::vector<KernelSource> f32_kernels() {
  std::vector<KernelSource> out;
  for (const PortFunction& f : port_functions)
    out.push_back(kernel_of("f32_" + std::string(scalar_code_name(f.code)), "float", 1, f.call));
  out.push_back(kernel_of("f32_pow", "float", 2, "esp_pow(x0[i], x1[i])"));
  out.push_back(kernel_of("f32_atan2", "float", 2, "esp_atan2(x0[i], x1[i])"));
  return out;
}

const sim::KernelLibrary& library() {
  static const sim::KernelLibrary kernels(f32_kernels());
  return kernels;
}

std::vector<float> run_on_sim(const std::string& name, std::vector<const std::vector<float>*> x) {
  for (const KernelSource& s : f32_kernels()) {
    if (s.name != name) continue;
    auto n = static_cast<int>(x[0]->size());
    std::vector<float> y(x[0]->size());
    std::vector<void*> operands;
    for (const auto* v : x) operands.push_back(const_cast<float*>(v->data()));
    operands.push_back(y.data());
    operands.push_back(&n);
    library().launch(s, {name, {static_cast<uint32_t>((n + 255) / 256)}, {256}}, operands, {});
    return y;
  }
  ADD_FAILURE() << "no kernel " << name;
  return {};
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

const PortFunction& port_function(ScalarCode code) {
  for (const PortFunction& f : port_functions)
    if (f.code == code) return f;
  throw InternalError("no such function");
}

TEST(DeviceMath, F32FunctionsHaveTheCpusBitsAndAreWithinUlp) {
  constexpr int64_t n = 60007;
  for (const test::Function& f : test::functions) {
    if (f.max_ulp < 0.6) continue;  // instructions of the machine
    const PortFunction& port = port_function(f.code);
    const std::vector<float> x = test::arguments(f, n);
    const std::vector<float> got = run_on_sim("f32_" + std::string(scalar_code_name(f.code)), {&x});
    std::vector<float> cpu(x.size());
    test::run(cpu::compile(test::function_nest(f.code, 1, Dtype::f32, Dtype::f32, n)), {x.data()},
              cpu.data());
    const bool turns = f.code == ScalarCode::sin || f.code == ScalarCode::cos;
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_LE(test::ulp_error(got[i], f.exact(x[i])), f.max_ulp)
          << port.call << " of " << x[i] << " is " << got[i] << ", not "
          << static_cast<double>(f.exact(x[i]));
      if (port.as_cpu && !(turns && std::fabs(x[i]) > 0x1p50f))
        ASSERT_TRUE(same_bits(got[i], cpu[i]))
            << port.call << " of " << x[i] << ": " << got[i] << ", " << cpu[i];
    }
  }
}

TEST(DeviceMath, ArgumentsAreReducedExactlyHoweverLarge) {
  std::mt19937 rng(5);
  std::uniform_real_distribution<float> significand(1.f, 2.f);
  std::vector<float> x;
  for (int e = 45; e < 128; ++e)
    for (int k = 0; k < 50; ++k) x.push_back(std::ldexp((k & 1 ? -1.f : 1.f) * significand(rng), e));
  for (const auto& [code, exact] : std::map<ScalarCode, long double (*)(long double)>{
           {ScalarCode::sin, sinl}, {ScalarCode::cos, cosl}, {ScalarCode::tan, tanl}}) {
    const std::vector<float> y = run_on_sim("f32_" + std::string(scalar_code_name(code)), {&x});
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_LE(test::ulp_error(y[i], exact(x[i])), 1.6)
          << scalar_code_name(code) << " of " << x[i] << " is " << y[i];
  }
}

TEST(DeviceMath, PowersAndAnglesOfTwo) {
  std::mt19937 rng(3);
  std::vector<float> x, y;
  for (float a : test::special_values())
    for (float b : test::special_values()) x.push_back(a), y.push_back(b);
  for (float a : {2.f, -2.f, 0.f, -0.f, -8.f})
    for (float b : {3.f, 2.f, -3.f, -2.f, 0.5f, 1.f / 3, 16777217.f, -1.f}) x.push_back(a), y.push_back(b);
  std::uniform_real_distribution<float> base(0.f, 10.f), exponent(-30.f, 30.f);
  while (x.size() < 20003) x.push_back(base(rng)), y.push_back(exponent(rng));
  const auto n = static_cast<int64_t>(x.size());
  const std::vector<float> power = run_on_sim("f32_pow", {&x, &y}), angle = run_on_sim("f32_atan2", {&x, &y});
  std::vector<float> cpu(x.size());
  test::run(cpu::compile(test::function_nest(ScalarCode::pow, 2, Dtype::f32, Dtype::f32, n)),
            {x.data(), y.data()}, cpu.data());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(test::ulp_error(power[i], powl(x[i], y[i])), 1.0) << x[i] << " ^ " << y[i] << " = " << power[i];
    ASSERT_TRUE(same_bits(power[i], cpu[i])) << x[i] << " ^ " << y[i] << ": " << power[i] << ", " << cpu[i];
    ASSERT_LE(test::ulp_error(angle[i], atan2l(x[i], y[i])), 0.6) << x[i] << ", " << y[i];
  }
}

/// Functions of doubles as the emitter calls them: CUDA's own. Its sin, cos and tan keep the reduction of large arguments in memory.
std::vector<KernelSource> f64_kernels() {
  std::vector<KernelSource> out;
  for (const char* f :
       {"exp", "expm1", "log", "log1p", "tanh", "erf", "atan", "sqrt", "floor", "rint", "sin", "cos", "tan"})
    out.push_back(kernel_of("f64_" + std::string(f), "double", 1, std::string(f) + "(x0[i])"));
  for (const char* f : {"pow", "atan2", "fmod"})
    out.push_back(kernel_of("f64_" + std::string(f), "double", 2, std::string(f) + "(x0[i], x1[i])"));
  return out;
}

TEST(DeviceMath, NoFunctionHasAStackOnAnyArchitectureHeavy) {
  const test::Nvrtc* nvrtc = test::Nvrtc::find();
  if (!nvrtc) GTEST_SKIP() << test::Nvrtc::why_not();
  std::string text = port_text();
  for (const KernelSource& s : f32_kernels()) text += s.text;
  for (const KernelSource& s : f64_kernels()) text += s.text;
  for (const char* arch : {"sm_80", "sm_89", "sm_90", "sm_100", "sm_120"}) {
    const test::Nvrtc::Result r = nvrtc->compile(text, arch);
    ASSERT_TRUE(r.compiled) << arch << "\n" << r.log;
    EXPECT_EQ(r.log.find("warning"), std::string::npos) << r.log;
    EXPECT_EQ(r.kernels.size(), f32_kernels().size() + f64_kernels().size());
    for (const auto& [name, facts] : r.kernels) {
      const bool exception = name == "f64_sin" || name == "f64_cos" || name == "f64_tan";
      EXPECT_EQ(facts.spill_bytes, 0) << name << " " << arch;
      EXPECT_EQ(facts.stack_bytes > 0, exception) << name << " " << arch << ": " << facts.stack_bytes;
      EXPECT_GT(facts.registers, 0) << name;
    }
  }
}

}  // namespace
}  // namespace espalier::target::cuda
