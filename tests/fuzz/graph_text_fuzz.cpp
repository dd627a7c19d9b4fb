// The text of a graph: any bytes either parse to a graph that verifies and prints to text of the same graph,
// or are refused with a UserError.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "ir/graph.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace espalier;
  ir::Graph graph;
  try {
    graph = ir::parse({reinterpret_cast<const char*>(data), size});
  } catch (const UserError&) {
    return 0;
  }
  ir::verify(graph);
  const std::string text = ir::print(graph);
  const ir::Graph again = ir::parse(text);
  ESPALIER_CHECK(ir::same_structure(graph, again), "the text reads back as another graph:\n" + text);
  ESPALIER_CHECK(ir::print(again) == text, "the text is not stable:\n" + text);
  return 0;
}
