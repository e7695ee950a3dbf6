// Measured with ONNX Runtime 1.21 on one thread of an AMD EPYC with AVX-512 and VNNI by
//   tools/debian13 --with-peers -- python3 bench/quant_costs.py
// Rows: key, {fixed us, macs ns, outputs ns, patches ns, weights ns} in float, the same in integers.
#include <array>

#include "quant/static_cost.h"

namespace onnxpress {
namespace {

constexpr std::array kVnni = {
    CostRow{"conv", {0, 0.0214, 0.0373, 0, 0}, {1.22, 0.00391, 0.471, 2.55, 0}},
    CostRow{"conv.pointwise", {4.58, 0.0174, 0.0618, 0, 0}, {4.39, 0.00428, 0.0727, 0, 0}},
    CostRow{"conv.depthwise", {1.77, 0.027, 0, 0.000253, 0}, {3, 0.0272, 0.0566, 1, 0}},
    CostRow{"conv.grouped", {0, 0.0162, 0.181, 0.388, 0}, {11.5, 0, 0, 5.95, 0}},
    CostRow{"matmul", {0.888, 0.0167, 0.0543, 0, 0.0325}, {1.82, 0.00416, 0.165, 0, 0.0118}},
    CostRow{"product", {0.889, 0.0184, 0.0426, 0, 0.0522}, {2.15, 0.00554, 0.13, 0, 0}},
    CostRow{"add", {0.865, 0, 0.153, 0, 0}, {2.02, 0, 0.153, 0, 0}},
    CostRow{"mul", {0.899, 0, 0.159, 0, 0}, {1.69, 0, 0.215, 0, 0}},
    CostRow{"concat", {1.48, 0, 0.0931, 0, 0}, {1.87, 0, 0.0226, 0, 0}},
    CostRow{"average_pool", {1.94, 0.0661, 0, 0, 0}, {1.9, 1.06, 0, 0, 0}},
    CostRow{"global_average_pool", {1.66, 0, 0.0515, 0, 0}, {1.04, 0, 0.0426, 0, 0}},
    CostRow{"sigmoid", {2.01, 0, 0.28, 0, 0}, {0.758, 0, 0.245, 0, 0}},
    CostRow{"leaky_relu", {0.418, 0, 1.36, 0, 0}, {1.52, 0, 0.274, 0, 0}},
    CostRow{"softmax", {5.05, 0, 0.505, 0, 0}, {0, 0, 4.26, 0, 0}},
    CostRow{"max_pool", {1.02, 0.0348, 0, 0, 0}, {1.03, 0.0385, 0, 0, 0}},
    CostRow{"transpose", {2.32, 0, 0.173, 0, 0}, {2.14, 0, 0.0496, 0, 0}},
    CostRow{"slice", {1.9, 0, 0.0905, 0, 0}, {1.1, 0, 0.0329, 0, 0}},
    CostRow{"resize", {1.32, 0, 0.161, 0, 0}, {2.79, 0, 0.2, 0, 0}},
    CostRow{"layout", {0.763, 0, 0.131, 0, 0}, {0.982, 0, 0.0755, 0, 0}},
    CostRow{"node", {0.331, 0, 0, 0, 0}, {0.307, 0, 0, 0, 0}},
    CostRow{"quantize", {2.17, 0, 0.0634, 0, 0}, {1.88, 0, 0.0688, 0, 0}},
    CostRow{"dequantize", {1.31, 0, 0.321, 0, 0}, {2.37, 0, 0.342, 0, 0}},
};

// Without VNNI one multiply-add of 8-bit codes takes three instructions instead of one. Derived, not measured.
constexpr double kInstructionsWithoutVnni = 3;

constexpr std::array kPlainX86 = [] {
  auto rows = kVnni;
  for (CostRow& row : rows)
    if (row.key == "conv" || row.key == "conv.pointwise" || row.key == "conv.grouped" || row.key == "matmul" ||
        row.key == "product")
      row.integer.macs_ns *= kInstructionsWithoutVnni;
  return rows;
}();

}  // namespace

std::span<const CostRow> cost_table(Target target) {
  switch (resolve(target)) {
    case Target::ort_x86_vnni:
      return kVnni;
    case Target::ort_x86:
      return kPlainX86;
    default:
      return {};
  }
}

}  // namespace onnxpress
