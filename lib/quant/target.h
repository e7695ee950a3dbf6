// What the quantized model will run on, as far as it changes what is emitted.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "num/tensor.h"

namespace onnxpress {

enum class Target {
  automatic,     // that of this machine: ort_x86_vnni, ort_x86 or ort_arm64
  ort_x86_vnni,  // ONNX Runtime; 8-bit products accumulate in 32 bits
  ort_x86,       // AVX2/AVX-512 without VNNI: u8 x s8 pair sums saturate at 16 bits, weights are kept clear of it
  ort_arm64,     // ONNX Runtime; signed activations are as good as unsigned ones
  tensorrt,      // symmetric int8, Q/DQ on what a layer reads, float biases
  openvino,      // uint8 activations, Q/DQ on what a layer reads, float biases
  generic,       // exact arithmetic, as the ONNX specification has it
};

// Spellings for the pass option `target`.
std::vector<std::pair<std::string, Target>> target_choices();
Target resolve(Target target);
std::string target_name(Target target);

// Whether a pair of products u8 * s8 + u8 * s8 may overflow 16 bits on this target.
bool saturates(Target target);

// Whether the target wants the result of an integer node as codes too, and biases as int32 (ONNX Runtime's fusion
// rules). Else it takes Q/DQ on what a layer reads only, and fuses the rest by itself.
bool quantizes_results(Target target);

// How activations become codes.
enum class ActivationFormat { automatic, uint8, int8, uint8_symmetric, int8_symmetric, uint16, int16 };
std::vector<std::pair<std::string, ActivationFormat>> activation_choices();
ActivationFormat resolve(ActivationFormat format, Target target);
DType activation_dtype(ActivationFormat format);  // of a resolved format
// The zero point is the middle of the codes. For unsigned codes of values that are never negative it is 0 all the same:
// a Relu is absorbed then, and no code is lost.
bool is_symmetric(ActivationFormat format);

}  // namespace onnxpress
