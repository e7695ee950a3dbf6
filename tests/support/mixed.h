// A network for the tests of sensitivity and quant-mixed, and its samples.
#pragma once

#include <string>

#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {

// m1 -> m2 -> m3, scores of 6 classes. The first value of what m1 makes is far larger than the others and hardly read:
// its range is too wide for them, so m1 and m2 lose most.
inline std::string layered_model() {
  std::vector<float> w1 = random_floats(32UL * 32, 1), w2 = random_floats(32UL * 32, 2);
  for (std::size_t row = 0; row < 32; ++row) w1[row * 32] *= 100;
  for (std::size_t column = 0; column < 32; ++column) w2[column] *= 1e-6F;
  const auto tensor = [](const std::string& name, const std::vector<float>& values) {
    std::string text = "float[32, 32] " + name + " = {";
    for (std::size_t i = 0; i < values.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
    return text + "}";
  };
  return HEAD "g (float[1, 32] x) => (float[1, 6] y) <" + tensor("w1", w1) + ", " + tensor("w2", w2) + ", " +
         float_tensor("w3", {32, 6}, 3) +
         "> { m1 = MatMul(x, w1) r1 = Relu(m1) m2 = MatMul(r1, w2) r2 = Relu(m2) y = MatMul(r2, w3) }";
}

inline std::vector<Batch> layered_samples(unsigned count = 24) {
  std::vector<Batch> samples;
  for (unsigned seed = 1; seed <= count; ++seed) samples.push_back(random_batch("x", {1, 32}, 500 + seed));
  return samples;
}

}  // namespace onnxpress::testing
