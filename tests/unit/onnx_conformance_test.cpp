// Foreign ONNX models through the reference interpreter: ONNX's own node tests (Debian's libonnx-testdata, or those in
// the folder that ESPALIER_ONNX_NODE_TESTS names), and networks of other tools with recorded results.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>

#include "base/file.h"
#include "format/onnx.h"
#include "support/arrays.h"
#include "target/reference/interpreter.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using ir::Array;

std::vector<Array> numbered(const fs::path& folder, const std::string& stem) {
  std::vector<Array> out;
  for (int i = 0;; ++i) {
    const fs::path path = folder / (stem + std::to_string(i) + ".pb");
    if (!fs::exists(path)) return out;
    out.push_back(format::load_onnx_tensor(path));
  }
}

/// Empty, or why the results differ.
std::string compare(const ir::Graph& graph, const std::vector<Array>& inputs, const std::vector<Array>& want,
                    const test::Tolerance& t) {
  const std::vector<Array> got = target::reference::evaluate(graph, inputs);
  if (got.size() < want.size()) return "fewer results than recorded";
  for (size_t i = 0; i < want.size(); ++i)
    if (const auto same =
            test::close(got[i], want[i], is_float(want[i].dtype()) ? t : test::Tolerance{1e-3, 1e-4, 2});
        !same)
      return "output " + std::to_string(i) + ": " + same.message();
  return "";
}

/// The graph of a case. Where it needs the values of shapes and axes, its inputs of one axis or none are given as
/// constants (and leave `inputs`).
ir::Graph load_case(const fs::path& model, std::vector<Array>& inputs) {
  try {
    return format::load_onnx(model);
  } catch (const UserError& e) {
    if (e.fields().problem.find("not known before a run") == std::string::npos) throw;
    format::OnnxLoadOptions options;
    std::vector<Array> left;
    const std::vector<std::string> names = format::onnx_input_names(model);
    for (size_t i = 0; i < inputs.size() && i < names.size(); ++i) {
      if (inputs[i].rank() <= 1 && (i > 0 || is_integer(inputs[i].dtype()) || inputs.size() == 3))
        options.constants[names[i]] = inputs[i];
      else left.push_back(inputs[i]);
    }
    inputs = left;
    return format::load_onnx(model, options);
  }
}

TEST(OnnxConformance, NodeTests) {
  const char* const other = std::getenv("ESPALIER_ONNX_NODE_TESTS");  // of another release of ONNX
  const fs::path root = other ? other : "/usr/share/libonnx-testdata/data/node";
  if (!fs::exists(root)) GTEST_SKIP() << "libonnx-testdata is not installed: " << root;
  int passed = 0, refused = 0, wrong = 0;
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(root)) cases.push_back(entry.path());
  std::sort(cases.begin(), cases.end());
  for (const fs::path& path : cases) {
    const std::string name = path.filename().string();
    try {
      std::vector<Array> inputs = numbered(path / "test_data_set_0", "input_");
      const std::vector<Array> want = numbered(path / "test_data_set_0", "output_");
      const ir::Graph graph = load_case(path / "model.onnx", inputs);
      const std::string problem = compare(graph, inputs, want, {1e-3, 1e-5, 8});
      problem.empty() ? ++passed : ++wrong;
      if (!problem.empty()) std::cout << "wrong " << name << ": " << problem << "\n";
    } catch (const UserError& e) {
      ++refused;
      const ErrorFields& f = e.fields();
      std::cout << "refused " << name << ": " << f.problem
                << (f.got.empty() ? "" : " (got " + f.got.substr(0, 80) + ")") << "\n";
    }
  }
  std::cout << passed << " of " << cases.size() << " passed, " << refused << " refused, " << wrong
            << " wrong\n";
  if (!other) EXPECT_GE(passed, 756);  // of 932; what is refused stands in the log with its reason
  EXPECT_EQ(wrong, 0);
}

/// Networks of other tools, with what ONNX Runtime computed.
TEST(OnnxConformance, Networks) {
  const fs::path root = fs::path(ESPALIER_SOURCE_DIR) / "../shared/data/onnx-models";
  if (!fs::exists(root)) GTEST_SKIP() << "no models in " << root;
  int passed = 0, wrong = 0;
  for (const char* const name :
       {"github/ort_mnist", "github/wonnx_opt-mnist", "github/pytorch_cifar_ImageClassifier",
        "github/pytorch_iris_Network", "github/ultraface_RFB-320", "github/basic_pitch_nmp",
        "github/magika_standard_v3_3", "github/niivue_brain_gwm_meshnet3d", "npm/ch_PP-OCRv4_det_infer",
        "npm/ch_ppocr_mobile_v2.0_cls_infer", "npm/oww_alexa_v0.1", "npm/oww_hello_deepa",
        "npm/oww_hey_mycroft_v0.1", "npm/oww_hey_rhasspy_v0.1", "npm/silero_vad",
        "npm/silero_vad_op18_ifless", "unsupported-cases/qonnx_jettagging"}) {
    const fs::path model = root / (std::string(name) + ".onnx"),
                   recorded = root / (std::string(name) + ".ref");
    try {
      const std::vector<Array> inputs = numbered(recorded, "input_"), want = numbered(recorded, "output_");
      format::OnnxLoadOptions options;
      const std::vector<std::string> names = format::onnx_input_names(model);
      for (size_t i = 0; i < inputs.size(); ++i) options.dims[names.at(i)] = inputs[i].dims();
      const ir::Graph graph = format::load_onnx(model, options);
      const std::string problem = want.empty() ? "" : compare(graph, inputs, want, {1e-3, 1e-4});
      problem.empty() ? ++passed : ++wrong;
      std::cout << name << ", " << graph.nodes().size() << " nodes: "
                << (want.empty()      ? "loads"
                    : problem.empty() ? "as recorded"
                                      : problem)
                << "\n";
    } catch (const UserError& e) {
      std::cout << "refused " << name << ": " << std::string(e.what()).substr(0, 300) << "\n";
    }
  }
  EXPECT_GE(passed, 11);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace espalier
