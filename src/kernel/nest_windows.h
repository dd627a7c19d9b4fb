#pragma once
// The folds of pooling and its gradients.
#include "kernel/nest_builder.h"

namespace espalier::kernel {

/// The fold of max_pool (either result), avg_pool (before its division) or a gradient of one.
Fold fold_of_window(const ir::Value& v);
/// The fold of resize_grad: over the results that may have read an element.
Fold fold_of_resize_grad(const ir::Value& v);

}  // namespace espalier::kernel
