#pragma once
// JSON against a schema: as much of JSON Schema as our own schemas say (type, required, properties, items, additionalProperties).
#include <nlohmann/json.hpp>
#include <string>

namespace espalier::test {

inline bool has_json_type(const nlohmann::json& value, const std::string& type) {
  return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
         (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
         (type == "null" && value.is_null()) || (type == "integer" && value.is_number_integer()) ||
         (type == "number" && value.is_number());
}

/// The first thing in `value` that `schema` does not allow, with its place; "" where it allows all.
inline std::string schema_error(const nlohmann::json& value, const nlohmann::json& schema,
                                const std::string& place = "$") {
  if (schema.contains("type")) {
    const nlohmann::json types =
        schema["type"].is_array() ? schema["type"] : nlohmann::json::array({schema["type"]});
    bool fits = false;
    for (const auto& type : types) fits = fits || has_json_type(value, type.get<std::string>());
    if (!fits) return place + " is " + value.dump() + ", not " + schema["type"].dump();
  }
  if (value.is_object()) {
    for (const auto& name : schema.value("required", nlohmann::json::array()))
      if (!value.contains(name.get<std::string>())) return place + " lacks " + name.dump();
    const nlohmann::json properties = schema.value("properties", nlohmann::json::object());
    for (const auto& [name, member] : value.items()) {
      if (!properties.contains(name)) {
        if (!schema.value("additionalProperties", true)) return place + " has " + name;
        continue;
      }
      if (std::string e = schema_error(member, properties[name], place + "." + name); !e.empty()) return e;
    }
  }
  if (value.is_array() && schema.contains("items"))
    for (size_t i = 0; i < value.size(); ++i)
      if (std::string e = schema_error(value[i], schema["items"], place + "[" + std::to_string(i) + "]");
          !e.empty())
        return e;
  return "";
}

}  // namespace espalier::test
