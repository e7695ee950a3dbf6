// Repairs a residual network that has lost blocks. Layers are fitted anew front to back, from the one before the first
// gap on, and each sees what those before it do now. One that adds to the stream is fitted so that the stream behind it
// comes as close as it can to that of the original, whatever the missing blocks would have added included:
//
//        x ─┬─► ... a ─► W, b ─┬► Add ─► s                 W', b' = argmin  sum over samples ||t - x - W a - b||^2
//           └──────────────────┘                                           + lambda ||W' - W||^2
//
// t is what the original has in place of s: its own s further back, or, where blocks behind this one are gone, what
// came behind them. Any other layer is fitted to what it makes itself in the original (x = 0). The fit in front of a
// gap is the linear map of ReplaceMe (Shopkhoev et al., arXiv 2505.02819), with all of W free instead of W T.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "pass/pass.h"
#include "repair/repair.h"

namespace onnxpress {

// A block that is gone: the value its readers read now, and the one they read before.
struct RemovedBlock {
  std::string input, output;
};

// `model` is `original` without the blocks, listed in the order they were removed in. Layers are the Conv, Gemm and
// MatMul of the main graph that have a constant weight; one adds to the stream when there is at most a bias between it
// and the Add. A layer keeps its weights when the new ones are no better on every fifth sample, which is held out, or
// when there is no such sample. Journals what was done to which layer. True when the model changed.
Result<bool> refit_stream(Model& model, const Model& original, std::span<const RemovedBlock> removed,
                          PassContext& context, const RepairOptions& options);

}  // namespace onnxpress
