// A Conv, Gemm or MatMul whose weight is computed from integer codes, and the same node in the float model it was
// made from: what passes that repair a quantized model work on.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "calib/gram.h"
#include "ir/model.h"
#include "ir/rewriter.h"
#include "num/quantize.h"
#include "quant/stored_codes.h"

namespace onnxpress {

enum class BiasKind {
  none,    // a MatMul, and nothing behind it adds one
  absent,  // the op could take one
  floating,
  integer,  // int32 through DequantizeLinear, scale s_x * s_w
  added,    // by an Add of a float constant behind a MatMul
};

struct QuantizedLayer {
  Node node, reference;  // in the quantized and in the float model
  Node weight;           // DequantizeLinear(codes, scale, zero point), or Mul(codes as floats, scale)
  StoredCodes codes;
  Node bias;  // DequantizeLinear of an integer bias, or the Add of one that is added
  PatchShape shape;
  std::int64_t channel_axis = 0;  // of the weight
  bool per_channel = false;       // one scale per output channel
  BiasKind bias_kind = BiasKind::none;
  std::optional<float> input_scale;  // when the data input is dequantized from codes with one scale

  // What the layer reads in the quantized model, and what it should give: the output of the reference.
  std::string input() const { return std::string(node.input(0)); }
  std::string target() const { return std::string(reference.output(0)); }
  bool can_shift() const { return bias_kind != BiasKind::none; }
};

// The layer behind a node of the quantized model's main graph, or why it is none. "" as a reason: the node is no Conv,
// Gemm or MatMul, or has a float weight, so that nobody expects it.
std::expected<QuantizedLayer, std::string> find_quantized_layer(const Node& node, const Model& reference);

// The numbers of a layer, a row of `shape.length` weights per output channel.
struct LayerNumbers {
  std::vector<double> weight;       // of the reference, alpha of a Gemm included
  std::vector<std::int32_t> codes;  // zero point taken off
  std::vector<float> scales;        // one per output channel, also where all are equal
  std::vector<double> bias;         // of the quantized layer as it is; zeros when the op itself has none
  CodeRange range;                  // that codes may take
  std::int32_t zero_point = 0;
  std::vector<std::size_t> pairs = {};  // RoundingLimits::pairs when the codes keep clear of saturation, else empty
};
// Errors: io; bad_input when a number is not finite.
Result<LayerNumbers> read_layer(const QuantizedLayer& layer);
// Bytes of it.
std::uint64_t layer_bytes(const QuantizedLayer& layer);

// Writes codes and scales; to be followed by write_bias(), since an integer bias is in units of the scales.
void write_weight(const QuantizedLayer& layer, const LayerNumbers& numbers, Rewriter& rewriter);
// Writes numbers.bias in the form the layer has; one that is absent becomes int32 where the input has a scale, else
// float; where it is added, it goes on top of what is there. Nothing when all stored numbers stay what they are: false.
// Asserts can_shift().
bool write_bias(const QuantizedLayer& layer, const LayerNumbers& numbers, Rewriter& rewriter);

// The least weight scale with which this bias fits 32 bits, given the scale of the input.
float least_weight_scale(double bias, float input_scale);

}  // namespace onnxpress
