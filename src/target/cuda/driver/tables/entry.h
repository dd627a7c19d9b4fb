#pragma once
// How a table of a library's functions is filled: each table is a struct of pointers and a constant tuple of what they are called.
#include <string>
#include <tuple>

namespace espalier::target::cuda::driver {

enum class Need {
  required,  ///< a library without it is not used
  optional,  ///< null where the library lacks it: whoever calls it asks first
};

template <class Api, class Function>
struct Entry {
  const char* name;
  Function* Api::*member;
  Need need;
};

template <class Api, class Function>
constexpr Entry<Api, Function> entry(const char* name, Function* Api::*member, Need need = Need::required) {
  return {name, member, need};
}

/// Set every member to what `address_of(name)` gives. What is missing of the required ones: "it lacks a, b", or "".
template <class Api, class Entries, class AddressOf>
std::string fill(Api& api, const Entries& entries, const AddressOf& address_of) {
  std::string missing;
  const auto one = [&]<class Function>(const Entry<Api, Function>& e) {
    api.*e.member = reinterpret_cast<Function*>(address_of(e.name));
    if (!(api.*e.member) && e.need == Need::required)
      missing += (missing.empty() ? "it lacks " : ", ") + std::string(e.name);
  };
  std::apply([&](const auto&... e) { (one(e), ...); }, entries);
  return missing;
}

}  // namespace espalier::target::cuda::driver
