// Small QDQ models for tests of prediction, repair and QOperator form: pieces of text to put together.
#pragma once

#include <string>

#include "support/models.h"

namespace onnxpress::testing {

// Constants that the models below may use; those that are not read do no harm.
inline const std::string kQdqConstants =
    "float xs = {0.1}, uint8 xz = {128}, uint8 z0 = {0}, float ys = {0.2}, uint8 yz = {100}, "
    "float ss = {0.05}, int8 sz = {3}, int8 s0 = {0}, int8 lowest = {-128}, uint16 hz = {30000}, "
    "float ws = {0.05}, int8 wz = {0}, int8[4, 4] wq = {1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, -4, -5, -6, -7}, "
    "float[4] ws4 = {0.05, 0.04, 0.03, 0.02}, int8[4] wz4 = {0, 0, 0, 0}, "
    "float[4, 4] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7}, "
    "float[4] b = {1, -2, 3, 4}, float[1, 4] b2 = {1, 2, 3, 4}, int32[4] bq = {100, -200, 300, 400}, "
    "float bs = {0.005}, float[4] bs4 = {0.005, 0.004, 0.003, 0.002}, "
    "int8[4, 4, 1, 1] cq = {1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, -4, -5, -6, -7}, "
    "float[4, 4, 1, 1] cw = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7}, "
    "float zero = {0}, float six = {6}, float cs = {0.0235294122}, float cs_wide = {0.0237254901}, "
    "int64[2] flat = {1, 36}, int8[4] add_q = {1, 2, 3, 4}";

// Inputs and outputs of a matrix and of an image.
#define QDQ_MATRIX "(float[2, 4] x) => (float[2, 4] y)"
#define QDQ_IMAGE "(float[1, 4, 3, 3] x) => (float[N, C, H, W] y)"
// x as dequantized codes in d; the weights of a matrix product and of a convolution in e; a bias in g.
#define QDQ_X "a = QuantizeLinear(x, xs, xz) d = DequantizeLinear(a, xs, xz) "
#define QDQ_W "e = DequantizeLinear(wq, ws, wz) "
#define QDQ_CW "e = DequantizeLinear(cq, ws, wz) "
#define QDQ_B "g = DequantizeLinear(bq, bs) "
// The result r to codes and back.
#define QDQ_Y " f = QuantizeLinear(r, ys, yz) y = DequantizeLinear(f, ys, yz)"

inline std::string qdq_model(std::string_view interface, std::string_view body, int opset = 17) {
  return "<ir_version: 8, opset_import: [\"\": " + std::to_string(opset) + ", \"com.microsoft\": 1]> g " +
         std::string(interface) + " <" + kQdqConstants + "> { " + std::string(body) + " }";
}

}  // namespace onnxpress::testing
