#pragma once
// The model as a file, and the proof that it comes back whole.
#include <filesystem>
#include <string>

#include "data/slices.h"
#include "ir/graph.h"

namespace espalier::imaging {

/// Where save_and_compare() writes: three files, and two folders of one NAME.npy per output.
struct SavedPaths {
  explicit SavedPaths(const std::filesystem::path& folder)
      : model(folder / "model.onnx"),
        slices(folder / "slices.npy"),
        log(folder / "fresh_process.log"),
        outputs(folder / "outputs"),
        outputs_fresh(folder / "outputs_fresh") {}
  std::filesystem::path model, slices, log, outputs, outputs_fresh;
};

/// Save `graph` (imaging::freeze) as folder/model.onnx with the slices `indices` as folder/slices.npy; run these with the engine in
/// memory (folder/outputs) and, by `program run`, in a fresh process that loads the file (folder/outputs_fresh), both in f32. Returns
/// a sentence for people. UserError when files cannot be written or the process fails; InternalError when the outputs differ.
std::string save_and_compare(const ir::Graph& graph, const data::SliceDataset& slices,
                             const std::vector<int64_t>& indices, const std::filesystem::path& folder,
                             const std::filesystem::path& program);

}  // namespace espalier::imaging
