#include "apps/imaging/saved_model.h"

#include <fmt/format.h>

#include <cstring>

#include "apps/imaging/engine.h"
#include "apps/imaging/fresh_process.h"
#include "base/file.h"
#include "base/text.h"
#include "format/numpy.h"
#include "format/onnx.h"
#include "run/executor.h"

namespace espalier::imaging {

namespace fs = std::filesystem;
using ir::Array;

namespace {

/// These slices, one after the other: f32 [slices, rows, columns, 3].
Array batch_of(const data::SliceDataset& slices, const std::vector<int64_t>& indices) {
  const std::vector<int64_t> dims = ir::static_dims(slices.fields()[0].type.dims);
  Array batch(ir::Dtype::f32, {static_cast<int64_t>(indices.size()), dims[0], dims[1], dims[2]});
  auto* to = static_cast<char*>(batch.write());
  data::Rng rng(0, 0, 0);
  for (const int64_t i : indices) {
    const Array image = slices.get(i, rng)[0].value;
    std::memcpy(to, image.data(), static_cast<size_t>(image.bytes()));
    to += image.bytes();
  }
  return batch;
}

}  // namespace

std::string save_and_compare(const ir::Graph& graph, const data::SliceDataset& slices,
                             const std::vector<int64_t>& indices, const fs::path& folder,
                             const fs::path& program) {
  const SavedPaths paths(folder);
  make_folder(paths.outputs);
  make_folder(paths.outputs_fresh);
  format::save_onnx(paths.model, graph);
  const Array batch = batch_of(slices, indices);
  format::save_npy(paths.slices, batch);
  const Engine engine = compile_engine(graph, "f32", batch.dims()[0]);
  run::Executor executor(engine.program);
  std::memcpy(executor.input(0), batch.data(), static_cast<size_t>(batch.bytes()));
  executor.run();
  std::vector<std::string> names;
  for (size_t o = 0; o < engine.program->outputs().size(); ++o) {
    const run::Port& port = engine.program->outputs()[o];
    names.push_back(port.name + ".npy");
    format::save_npy(
        paths.outputs / names.back(),
        Array::borrow(port.type.dtype, ir::static_dims(port.type.dims), executor.output(o), nullptr));
    fs::remove(paths.outputs_fresh / names.back());
  }
  const int code = run_process(program,
                               {"run", paths.model.string(), "--input", "image=" + paths.slices.string(),
                                "--output", paths.outputs_fresh.string()},
                               paths.log);
  if (code != 0)
    throw UserError({"the fresh process", "could not run " + paths.model.string(),
                     fmt::format("exit code {}", code), "its own message stands above"});
  for (const std::string& name : names)
    if (read_file(paths.outputs / name) != read_file(paths.outputs_fresh / name))
      throw InternalError("the saved model's " + name +
                          " in a fresh process differs from that of the engine in memory");
  return fmt::format(
      "model.onnx ({}), loaded and run in a fresh process on {} slices: {} equal those in memory, bit for "
      "bit",
      bytes_text(static_cast<int64_t>(fs::file_size(paths.model))), indices.size(), join(names, ", "));
}

}  // namespace espalier::imaging
