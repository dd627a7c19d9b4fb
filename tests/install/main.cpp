// A program of someone else: it sees the installed headers and the shared library only.
#include <base/error.h>

#include <cstdio>
#include <string>

int main() {
  try {
    throw espalier::UserError(
        {.where = "here", .problem = "nothing is wrong", .got = "this", .allowed = "that"});
  } catch (const espalier::UserError& error) {
    std::puts(error.what());
    return std::string(error.what()).find("nothing is wrong") == std::string::npos;
  }
}
