#pragma once
// Golden texts: what a text should be lies in a file beside the test. A difference fails with the lines that differ;
// ESPALIER_UPDATE_GOLDEN=1 in the environment writes the file anew instead, to be read in the diff of the commit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/text.h"

namespace espalier::test {

inline bool updates_golden() {
  const char* value = std::getenv("ESPALIER_UPDATE_GOLDEN");
  return value && std::string_view(value) == "1";
}

inline std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

/// The lines of both texts along their longest common subsequence: "  " in both, "- " wanted only, "+ " got only.
inline std::string diff_lines(std::string_view want_text, std::string_view got_text) {
  const std::vector<std::string> want = lines_of(want_text), got = lines_of(got_text);
  const size_t columns = got.size() + 1;
  std::vector<int> common((want.size() + 1) * columns, 0);  // of the rests that begin at (i, j)
  const auto at = [&](size_t i, size_t j) -> int& { return common[i * columns + j]; };
  for (size_t i = want.size(); i-- > 0;)
    for (size_t j = got.size(); j-- > 0;)
      at(i, j) = want[i] == got[j] ? at(i + 1, j + 1) + 1 : std::max(at(i + 1, j), at(i, j + 1));
  std::string out;
  for (size_t i = 0, j = 0; i < want.size() || j < got.size();) {
    if (i < want.size() && j < got.size() && want[i] == got[j]) {
      (out += "  ") += want[i] + "\n";
      ++i, ++j;
    } else if (j == got.size() || (i < want.size() && at(i + 1, j) >= at(i, j + 1))) {
      (out += "- ") += want[i++] + "\n";
    } else {
      (out += "+ ") += got[j++] + "\n";
    }
  }
  return out;
}

/// Success where `got` is `want`, else the file and the difference.
inline testing::AssertionResult golden(std::string_view want, std::string_view got,
                                       const std::filesystem::path& file) {
  if (want == got) return testing::AssertionSuccess();
  return testing::AssertionFailure() << file.string()
                                     << " says otherwise (- it, + what came); to accept what came: "
                                     << "ESPALIER_UPDATE_GOLDEN=1 build/release/bin/test_golden\n"
                                     << diff_lines(want, got);
}

}  // namespace espalier::test
