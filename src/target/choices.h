#pragma once
// Which of a library's ways does each record of a program: what `espalier tune` finds and keeps as text. Good for one kind of device and the
// versions of the libraries it was found with.
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "target/device.h"

namespace espalier::target {

/// Bytes of workspace that a way may take while a program is planned or tuned.
inline constexpr int64_t choice_workspace = int64_t{32} << 20;

struct Choice {
  std::string name;  ///< the library's, as Device::choices() gives it: one word
  double us = 0;     ///< that it took
  bool operator==(const Choice&) const = default;
};

struct Choices {
  std::string device;                            ///< "NVIDIA H200"
  std::map<std::string, std::string> libraries;  ///< version by name
  std::map<std::string, Choice> records;         ///< by what choice_key() says of them
  bool operator==(const Choices&) const = default;
};

/// For Device::use(): each record's choice; those that have none take the library's first.
std::shared_ptr<const Ways> ways_of(Choices choices);

/// A record without its operands and its workspace.
std::string choice_key(const CallRecord::Work& work);

/// A line for each matter:
///     espalier choices 1
///     device NVIDIA H200
///     library cudnn 9.19.0
///     choice 12.500 2:7 conv forward x bf16[...] ...
std::string text(const Choices& choices);
/// UserError where it is no such text, with the line; `source` says in it where the text is from.
Choices parse_choices(std::string_view text, std::string_view source);

}  // namespace espalier::target
