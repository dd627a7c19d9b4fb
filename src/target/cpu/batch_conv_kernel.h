#pragma once
// Our own convolutions over batch blocks (emit/batch_conv.h), as an entry of the kernel list.
#include <memory>
#include <variant>

#include "target/cpu/contraction.h"
#include "target/interface.h"

namespace espalier::target::cpu {

/// Should the activations of this convolution lie in batch blocks (of as many elements as a vector has), since the library is slow on so few channels?
bool wants_batch_blocks(const onednn::ConvSpec& spec);

/// Why the call is none of ours; empty when it is.
kernel::Verdict refuse_batch_conv(const ContractionCall& call);

/// The kernel of a call over batch blocks, for a body with `inputs` inputs.
std::variant<std::unique_ptr<Kernel>, kernel::Refusal> make_batch_conv_kernel(const ContractionCall& call,
                                                                              int inputs);

}  // namespace espalier::target::cpu
