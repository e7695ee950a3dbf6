// How long a node takes in float and in integers, and what it costs to go between the two: a linear model of a few
// features of the node's shapes, with coefficients measured per target (static_cost_table.cc).
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "ir/model.h"
#include "quant/static_shapes.h"
#include "quant/target.h"

namespace onnxpress {

// What a node does, as far as time depends on it.
struct CostFeatures {
  double macs = 0;     // multiplications, operands padded to what the kernels work on; elements a pool looks at
  double outputs = 0;  // elements
  double patches = 0;  // elements gathered before the product of a convolution
  double weights = 0;  // elements of the second operand
};

struct CostLine {
  double fixed_us = 0;
  double macs_ns = 0, outputs_ns = 0, patches_ns = 0, weights_ns = 0;  // each
  double us(const CostFeatures& features) const;
};

struct CostRow {
  std::string_view key;  // "conv.depthwise", "add"
  CostLine real, integer;
};

// Empty for targets nothing was measured for.
std::span<const CostRow> cost_table(Target target);

class CostModel {
 public:
  // Nothing when the target has no table.
  static std::optional<CostModel> of(Target target);

  struct Times {
    double real = 0, integer = 0;  // microseconds
  };
  // Nothing when shapes are not known or nothing is known of such nodes.
  std::optional<Times> node(const Node& node, const SeenTypes& types) const;
  // Microseconds to make codes of a value, and values of its codes. Images (four dimensions) change their layout too
  // where a convolution is involved: on the integer side, on the float side.
  double quantize(const SeenType& type, bool integer_image, bool float_image) const;
  double dequantize(const SeenType& type, bool integer_image, bool float_image) const;

 private:
  explicit CostModel(std::span<const CostRow> rows) : rows_(rows) {}
  const CostRow& row(std::string_view key) const;
  double convert(std::string_view key, const SeenType& type, bool integer_image, bool float_image) const;

  std::span<const CostRow> rows_;
};

}  // namespace onnxpress
