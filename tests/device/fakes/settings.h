#pragma once
// What a test asks of the fake libraries: ESPALIER_FAKE_GPU holds "key=value;key=value", read at every call.
//   driver=12040                 what cuDriverGetVersion() answers          gpus=2        how many there are
//   lacks=cuDeviceGetUuid,...    entry points that cannot be found          mig=1         device 0 is a slice of a MIG device
//   fails=cuInit:999,...         calls that answer with an error            ecc=0         ECC is off
//   mode=3                       the compute mode
#include <cstdlib>
#include <string>

namespace fake {

inline std::string setting(const std::string& key, const std::string& fallback) {
  const char* all = std::getenv("ESPALIER_FAKE_GPU");
  const std::string text = ";" + std::string(all ? all : "") + ";";
  const size_t at = text.find(";" + key + "=");
  if (at == std::string::npos) return fallback;
  const size_t from = at + key.size() + 2;
  return text.substr(from, text.find(';', from) - from);
}

inline int number(const std::string& key, int fallback) {
  return std::stoi(setting(key, std::to_string(fallback)));
}

inline bool lacks(const std::string& name) {
  return ("," + setting("lacks", "") + ",").find("," + name + ",") != std::string::npos;
}

/// The error that this call is to answer with; 0: none.
inline int error_of(const std::string& name) {
  const std::string list = "," + setting("fails", "");
  const size_t at = list.find("," + name + ":");
  return at == std::string::npos ? 0 : std::stoi(list.substr(at + name.size() + 2));
}

}  // namespace fake
