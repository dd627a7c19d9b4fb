#pragma once
// cuDNN over a simulated driver: it reads the descriptors of an operation graph back as the convolution they say, and puts that into the
// stream. What contradicts itself it does not take.
#include <map>
#include <memory>
#include <vector>

#include "target/cuda/driver/tables/dnn.h"
#include "target/cuda/sim/sim_state.h"

namespace espalier::target::cuda::sim {

/// A descriptor: its attributes as they were set.
struct SimDnnObject {
  using Ref = std::shared_ptr<SimDnnObject>;
  explicit SimDnnObject(driver::DnnKind kind) : kind(kind) {}

  driver::DnnKind kind;
  bool finished = false;
  std::map<driver::DnnAttribute, std::vector<char>> values;
  std::map<driver::DnnAttribute, std::vector<Ref>> parts;
};

/// Each method is the function of that name; one call at a time.
struct SimDnn {
  using DnnStatus = driver::DnnStatus;
  using Descriptor = driver::DnnDescriptor;

  explicit SimDnn(SimState& state) : state(state) {}

  DnnStatus create(driver::DnnHandle* handle);
  DnnStatus destroy(driver::DnnHandle handle);
  DnnStatus set_stream(driver::DnnHandle handle, void* stream);
  DnnStatus create_descriptor(driver::DnnKind kind, Descriptor* descriptor);
  DnnStatus destroy_descriptor(Descriptor descriptor);
  DnnStatus finalize(Descriptor descriptor);
  DnnStatus set_attribute(Descriptor descriptor, driver::DnnAttribute name, driver::DnnType type,
                          int64_t count, const void* values);
  DnnStatus get_attribute(Descriptor descriptor, driver::DnnAttribute name, driver::DnnType type,
                          int64_t room, int64_t* count, void* values);
  DnnStatus give(Descriptor to, const SimDnnObject& from, int64_t engine);
  DnnStatus configurations(const SimDnnObject& heuristics, int64_t room, int64_t* count,
                           const Descriptor* to);
  DnnStatus execute(driver::DnnHandle handle, Descriptor plan, Descriptor pack);

  /// Handles and descriptors that were not destroyed.
  int64_t live() const { return static_cast<int64_t>(handles.size() + objects.size()); }

  struct HandleData {
    SimContext* context = nullptr;
    driver::CuStream stream = nullptr;
  };
  SimState& state;
  std::map<driver::DnnHandle, std::unique_ptr<HandleData>> handles;
  std::map<Descriptor, SimDnnObject::Ref> objects;
};

size_t sim_dnn_version();
size_t sim_dnn_cudart_version();
const char* sim_dnn_error(driver::DnnStatus status);
void sim_dnn_last_error(char* message, size_t size);

}  // namespace espalier::target::cuda::sim
