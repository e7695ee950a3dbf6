// The old network with removed units silenced: what the narrower one is compared with.
#pragma once

#include "base/result.h"
#include "depend/axes.h"
#include "ir/model.h"

namespace onnxpress {

// Sets the slices of constants that `kept` would cut to zero: of floats, and of the integers that a DequantizeLinear
// reads (to their zero point). Divisors, variances, exponents and quantizer scales stay: zero is not neutral there.
// Where statistics are taken over a cut axis (LayerNormalization and its kin, means), silence is no absence either:
// such nodes run on what is left, and their results get zeros in the gaps.
Status blank_units(Model& model, Graph& graph, const KeptAxes& kept, unsigned jobs);

}  // namespace onnxpress
