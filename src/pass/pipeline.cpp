#include "pass/passes.h"

namespace espalier::pass {

namespace {

constexpr Pass passes[] = {
    {"simplify", "algebra before anything else, so that later patterns see plain forms", simplify,
     ir::Level::tensor},
    {"sink_relu", "sees gradients in the form that their rules gave them", sink_relu, ir::Level::tensor},
    {"fold_constants", "frozen weights make whole subgraphs constant", fold_constants, ir::Level::tensor},
    {"fold_batch_norm", "needs batch_norm whole, so before expansion", fold_batch_norm, ir::Level::tensor},
    {"mixed_precision", "decides dtypes while norms and losses are still one op each", mixed_precision,
     ir::Level::tensor},
    {"expand_composites", "below here only primitive ops and what the target claims", expand_composites,
     ir::Level::tensor},
    {"widen_contractions", "all contractions are in sight, and the casts can still cancel",
     widen_contractions, ir::Level::tensor},
    {"simplify_expanded", "expansions meet: their casts and broadcasts cancel", simplify, ir::Level::tensor},
    {"fold_expanded", "constants that expansion uncovered (casts of weights)", fold_constants,
     ir::Level::tensor},
    {"choose_layout", "needs single ops, and comes before fusion hides them", choose_layout,
     ir::Level::fused},
    {"simplify_layout", "layout changes that meet cancel", simplify, ir::Level::fused},
    {"fold_layout", "layout changes of constants", fold_constants, ir::Level::fused},
    {"fuse_contractions", "matrix kernels choose their epilogues first", fuse_contractions, ir::Level::fused},
    {"fuse_loops", "what is left between them becomes loops", fuse_loops, ir::Level::fused},
    {"batch_nests", "last: it gathers whole loops", batch_nests, ir::Level::fused},
};

}  // namespace

std::span<const Pass> pipeline() { return passes; }

}  // namespace espalier::pass
