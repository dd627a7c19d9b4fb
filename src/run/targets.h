#pragma once
// The targets a program can be compiled for, by name.
#include <span>
#include <string_view>

#include "base/export.h"
#include "target/interface.h"

namespace espalier::run {

struct NamedTarget {
  std::string_view name, doc;
  const target::Target& (*get)();
};

/// Every target of this build, the default one first.
ESPALIER_API std::span<const NamedTarget> targets();
/// The target of that name; UserError lists the names.
ESPALIER_API const target::Target& find_target(std::string_view name);
/// The first of targets().
ESPALIER_API const target::Target& default_target();

}  // namespace espalier::run
