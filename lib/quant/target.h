// What the quantized model will run on, as far as it changes what is emitted.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace onnxpress {

enum class Target {
  automatic,     // ort_x86_vnni when this machine has VNNI, else ort_x86
  ort_x86_vnni,  // 8-bit products accumulate in 32 bits
  ort_x86,       // AVX2/AVX-512 without VNNI: u8 x s8 pair sums saturate at 16 bits, weights are kept clear of it
  ort_arm64,     // int8 activations fuse too
  generic,       // exact arithmetic, as the ONNX specification has it
};

// Spellings for the pass option `target`.
std::vector<std::pair<std::string, Target>> target_choices();
Target resolve(Target target);
std::string target_name(Target target);

// Whether a pair of products u8 * s8 + u8 * s8 may overflow 16 bits on this target.
bool saturates(Target target);

}  // namespace onnxpress
