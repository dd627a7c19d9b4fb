#pragma once
// The bytes between the buffers of an arena, where a program was compiled with some (CompileOptions::red_zone).
#include "run/program.h"

namespace espalier::run {

/// What poison() leaves there.
inline constexpr unsigned char red_zone_byte = 0xff;

/// InternalError names the steps that may have written behind a buffer: those whose result or scratch lies before a zone of `arena`
/// that is not as poison() left it.
void check_red_zones(const Program& program, const char* arena);

}  // namespace espalier::run
