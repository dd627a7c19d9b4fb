// An ONNX file from outside: a graph that verifies and is saved to a file that is read again, or a UserError, never a crash.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "format/onnx.h"
#include "ir/graph.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace espalier;
  ir::Graph graph;
  try {
    graph = format::parse_onnx({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const UserError&) {
    return 0;
  }
  ir::verify(graph);
  const std::string saved = format::onnx_bytes(graph);
  const ir::Graph again = format::parse_onnx(saved, "saved");
  ESPALIER_CHECK(again.inputs.size() == graph.inputs.size() && again.outputs.size() == graph.outputs.size(),
                 "the saved file has other inputs or outputs");
  for (size_t i = 0; i < graph.outputs.size(); ++i)
    ESPALIER_CHECK(again.outputs[i].value.type() == graph.outputs[i].value.type(),
                   "the saved file has a result of another type");
  return 0;
}
