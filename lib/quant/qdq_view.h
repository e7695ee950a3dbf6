// QuantizeLinear and DequantizeLinear nodes of a model, read: their parameters and neighbours.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ir/model.h"
#include "num/quantize.h"

namespace onnxpress {

bool is_quantize(const Node& node);  // of the standard or of com.microsoft
bool is_dequantize(const Node& node);

// The type of the codes a Q makes or a DQ takes; undefined when unknown.
DType codes_type(const Node& node);
// One constant scale and one constant zero point (0 when left out); nullopt otherwise.
std::optional<AffineParams> scalar_params(const Node& node);

// The DQ that makes input `slot`, or an empty handle.
Node dequantize_before(const Node& node, std::size_t slot);
// The readers of a value when all of them are DQs of this scope and it is no output; empty otherwise.
std::vector<Node> dequantizes_of(const Graph& graph, std::string_view codes);

// The only node that reads the value, in this scope and not as an output; empty handle otherwise.
Node only_reader(const Graph& graph, std::string_view value);

// Bounds a Relu or Clip enforces, +-infinity where there is none; nullopt when a bound is not constant, and for other
// nodes.
std::optional<std::pair<double, double>> clip_bounds(const Node& node);
// The same where `constant` says what is at an input: nullopt when that is no constant of one element.
std::optional<std::pair<double, double>> clip_bounds(
    const Node& node, const std::function<std::optional<Tensor>(std::size_t slot)>& constant);

// Values go through unchanged, or a subset of them, or their maximum (MaxPool): one set of parameters fits both sides.
bool is_movement(const Node& node);

// Scales in the type of the scale of `like` (half models have half scales): a scalar, or one per channel.
Result<Tensor> scale_tensor(const Node& like, std::span<const float> scales);
// A scalar constant holding the zero point as a code of `type`.
Tensor code_scalar(DType type, std::int32_t code);

// Removes what a rewrite leaves behind: initializers of the scope that were read when this was made and no longer are.
class OrphanedConstants {
 public:
  explicit OrphanedConstants(Graph& graph);
  Result<bool> drop();  // true when the model changed

 private:
  Graph& graph_;
  std::vector<std::string> read_;
};

}  // namespace onnxpress
