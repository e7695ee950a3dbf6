// Repairs of models that are quantized already (QDQ, by any tool), one step each: what they change, in which order, and
// what it costs is told in passes/quant/repair.cc. Every step edits one scope, journals what it did and what it could
// not do, and returns whether the scope changed. Scopes of functions cannot hold initializers and are not given to
// them. Errors: io (reading or storing tensors).
#pragma once

#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress::repair {

Result<bool> write_zero_points(Graph& graph, PassContext& context);  // left-out zero points become explicit zeros
Result<bool> to_uint8(Graph& graph, PassContext& context);           // int8 activations: code + 128, the same values
// A value with a QuantizeLinear and other readers: all read the dequantized value, a graph output is it.
Result<bool> share_codes(Graph& graph, PassContext& context);
Result<bool> absorb_clips(Graph& graph, PassContext& context);      // codes behind Relu and Clip within its bounds
Result<bool> unify_scales(Graph& graph, PassContext& context);      // one set of parameters across data movement
Result<bool> quantize_outputs(Graph& graph, PassContext& context);  // QuantizeLinear behind Conv where one is missing
Result<bool> fix_biases(Graph& graph, PassContext& context);        // int32, with the scale that fused kernels assume
// Conversions to codes and back that no integer kernel uses, as predicted for uint8 or int8 activations.
Result<bool> drop_useless_pairs(Graph& graph, PassContext& context, bool int8_activations);

}  // namespace onnxpress::repair
