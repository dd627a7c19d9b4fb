#pragma once
// What --json prints: one object on one line. Text that is no UTF-8 (file names may be anything) gets replacement characters.
#include <nlohmann/json.hpp>
#include <string>

namespace espalier::tool {

inline std::string json_line(const nlohmann::json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace espalier::tool
