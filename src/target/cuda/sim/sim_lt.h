#pragma once
// cuBLASLt over a simulated driver: it reads descriptors as the library does and puts the product they say into the stream. What the library
// would not take it does not take either.
#include <map>
#include <memory>

#include "target/cuda/driver/tables/lt.h"
#include "target/cuda/sim/sim_state.h"
#include "target/device.h"

namespace espalier::target::cuda::sim {

/// Each method is the function of that name; one call at a time.
struct SimLt {
  using LtStatus = driver::LtStatus;
  using Desc = driver::LtMatmulDesc;
  using Layout = driver::LtMatrixLayout;
  using Preference = driver::LtMatmulPreference;

  explicit SimLt(SimState& state) : state(state) {}

  LtStatus create(driver::LtHandle* handle);
  LtStatus destroy(driver::LtHandle handle);
  LtStatus desc_create(Desc* desc, driver::LtCompute compute, driver::LtType scale);
  LtStatus desc_destroy(Desc desc);
  LtStatus desc_set(Desc desc, driver::LtDescAttribute attribute, const void* value, size_t bytes);
  LtStatus layout_create(Layout* layout, driver::LtType type, uint64_t rows, uint64_t columns, int64_t ld);
  LtStatus layout_destroy(Layout layout);
  LtStatus layout_set(Layout layout, driver::LtLayoutAttribute attribute, const void* value, size_t bytes);
  LtStatus preference_create(Preference* preference);
  LtStatus preference_destroy(Preference preference);
  LtStatus preference_set(Preference preference, driver::LtPreferenceAttribute attribute, const void* value,
                          size_t bytes);
  LtStatus heuristic(driver::LtHandle handle, Desc desc, Layout a, Layout b, Layout c, Layout d,
                     Preference preference, int wanted, driver::LtHeuristic* found, int* count);
  LtStatus check(driver::LtHandle handle, Desc desc, Layout a, Layout b, Layout c, Layout d,
                 const driver::LtAlgo* algo, driver::LtHeuristic* found);
  LtStatus matmul(driver::LtHandle handle, Desc desc, const void* alpha, const void* a, Layout a_layout,
                  const void* b, Layout b_layout, const void* beta, const void* c, Layout c_layout, void* d,
                  Layout d_layout, const driver::LtAlgo* algo, void* workspace, size_t workspace_bytes,
                  driver::CuStream stream);

  /// Handles and descriptors that were not destroyed.
  int64_t live() const {
    return static_cast<int64_t>(handles.size() + descs.size() + layouts.size() + preferences.size());
  }

  struct DescData {
    driver::LtCompute compute;
    driver::LtType scale;
    driver::LtOperation a = driver::LtOperation::none, b = driver::LtOperation::none;
    driver::LtEpilogue epilogue = driver::LtEpilogue::none;
    Address bias = 0, aux = 0;
    int64_t aux_ld = 0;
  };
  struct LayoutData {
    driver::LtType type;
    uint64_t rows, columns;
    int64_t ld;
    int32_t batch = 1;
    int64_t stride = 0;
  };
  struct PreferenceData {
    uint64_t workspace = 0;
    uint32_t reductions = 7, alignment[4] = {256, 256, 256, 256};
  };
  struct HandleData {
    SimContext* context;
  };
  /// The record that the descriptors say, but for its factors and workspace; nothing where they contradict each other.
  std::unique_ptr<GemmCall> record(Desc desc, Layout a, Layout b, Layout c, Layout d) const;

  SimState& state;
  std::map<driver::LtHandle, std::unique_ptr<HandleData>> handles;
  std::map<Desc, std::unique_ptr<DescData>> descs;
  std::map<Layout, std::unique_ptr<LayoutData>> layouts;
  std::map<Preference, std::unique_ptr<PreferenceData>> preferences;
};

size_t sim_lt_version();
const char* sim_lt_status(driver::LtStatus status);

}  // namespace espalier::target::cuda::sim
