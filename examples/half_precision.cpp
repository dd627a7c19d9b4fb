// Loads a saved model, compiles it at half precision, saves it, loads that, runs it and prints the result.
// usage: half_precision MODEL.onnx HALF.onnx
#include <format/onnx.h>
#include <tensor/compile.h>

#include <cstdio>
#include <iostream>

using namespace espalier;

namespace {

/// The model's results at a precision; its weights are constants, folded and packed once.
Compiled compiled(const Model& model, const std::string& precision) {
  return compile([&model](const std::vector<Tensor>& in) { return model(in); },
                 {.precision = precision, .freeze = true});
}

void convert_and_run(const std::string& from, const std::string& to) {
  const Model model(format::load_onnx(from));
  std::vector<Tensor> input;
  for (size_t i = 0; i < model.arguments(); ++i) {
    std::vector<int64_t> dims;
    for (const Dim& d : model.argument_type(i).dims) dims.push_back(d.is_static() ? d.value() : d.factor());
    input.push_back(Tensor::randn(dims, i).cast(model.argument_type(i).dtype));
  }
  const Tensor half = compiled(model, "bf16")(input)[0];

  // The file keeps f32 weights beside the precision they run at: nothing is lost, and it can be trained on.
  format::save_onnx(to, model.frozen(), {.metadata = {{"espalier.precision", "bf16"}}});
  const Model again(format::load_onnx(to));
  const Tensor result = compiled(again, format::onnx_metadata(to).at("espalier.precision"))(input)[0];

  std::cout << "result " << result << '\n';
  std::printf("largest difference: %g from before saving, %g from f32\n", (result - half).abs().max().item(),
              (result.cast(Dtype::f32) - compiled(model, "f32")(input)[0]).abs().max().item());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: half_precision MODEL.onnx HALF.onnx\n"), 2;
  try {
    convert_and_run(argv[1], argv[2]);
  } catch (const UserError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
