#pragma once
// The device header as text: names of the port, then the elementary functions over the tables of kernel/math_tables.h.
#include <string>

namespace espalier::target::cuda {

/// What stands before every kernel's text.
const std::string& port_text();

/// How NVRTC is to read it, beside the architecture: fma only where it is written, and no word about functions a kernel does not use.
inline constexpr const char* nvrtc_options[] = {"-std=c++20", "-fmad=false", "-diag-suppress=177"};

/// A number as the device's language writes it, exactly: "0x1.8p+1f", "-0x1p-3", infinities and NaN by their bits.
std::string literal(float value);
std::string literal(double value);

}  // namespace espalier::target::cuda
