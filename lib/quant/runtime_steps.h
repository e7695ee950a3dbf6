// The steps of ONNX Runtime's graph optimizer that decide what runs in integers, in the order it takes them. Each
// rewrites a RuntimeGraph and says whether it changed anything. Rules: those of ONNX Runtime 1.21 for its CPU provider.
// Float fusions (Gelu, LayerNormalization, Conv + activation, ...) are left out: what they make of float nodes is
// float.
#pragma once

#include <optional>
#include <string>

#include "num/quantize.h"
#include "quant/runtime_graph.h"

namespace onnxpress::runtime {

using Item = RuntimeGraph::Item;

// QuantizeLinear and DequantizeLinear of the standard and of com.microsoft.
bool is_quantize(const Item& item);
bool is_dequantize(const Item& item);
// The type of the codes it makes or takes.
DType codes_type(const RuntimeGraph& graph, const Item& item);
// Constant scale and zero point of one element each; a zero point left out is 0.
std::optional<AffineParams> scalar_params(const RuntimeGraph& graph, const Item& item);
// Whether a conversion to codes and one back undo each other: constant scalars, both zero points written, all equal.
// Else `why` says what is in the way.
bool is_pair(const RuntimeGraph& graph, const Item& quantize, const Item& dequantize, std::string* why = nullptr);

// Why the codes that `quantize` makes do not render the Relu or Clip before it superfluous; "" when they do.
std::string clip_refusal(const RuntimeGraph& graph, const Item& clip, const Item& quantize);

// Level 1: before nodes are given to a provider.
bool unique_dequantize(RuntimeGraph& graph);            // one DequantizeLinear per reader
bool drop_identities(RuntimeGraph& graph);              // Identity, Dropout, Cast to the same type
bool merge_double_pairs(RuntimeGraph& graph);           // Q DQ Q DQ => Q DQ
bool merge_equal_nodes(RuntimeGraph& graph);            // common subexpressions
bool fold_constants(RuntimeGraph& graph);               // DequantizeLinear is kept
bool matmul_add_to_gemm(RuntimeGraph& graph);           // MatMul + Add => Gemm, between Reshapes when not of rank 2
bool propagate_pairs(RuntimeGraph& graph);              // Q and DQ across data movement
bool quantize_weights_and_biases(RuntimeGraph& graph);  // float W and b of Conv and Gemm between DQ and Q

// Level 2: on the CPU provider.
bool drop_redundant_clips(RuntimeGraph& graph);  // Relu and Clip that the QuantizeLinear behind them repeats
bool int8_to_uint8(RuntimeGraph& graph);         // Q and DQ of values with one reader; x86
bool select_groups(RuntimeGraph& graph, bool int8_activations);  // DQ -> op -> Q => integer kernels
bool fuse_dynamic_matmuls(RuntimeGraph& graph);                  // MatMulInteger + Cast + Mul [+ Add]
bool add_bias_to_matmul_nbits(RuntimeGraph& graph);
bool drop_requantization(RuntimeGraph& graph);  // DQ -> Q of equal parameters

}  // namespace onnxpress::runtime
