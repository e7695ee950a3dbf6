#include "quant/smooth.h"

#include <algorithm>
#include <cmath>

#include "num/linalg.h"
#include "num/quantize.h"

namespace onnxpress {
namespace {

// Channels of a tiny or huge factor would leave the range of 16-bit floats and of int32 biases.
constexpr double kMostFactor = 1e4;

}  // namespace

void SmoothProblem::add_weight(std::span<const float> values, const ChannelLayout& layout) {
  Weight weight{std::vector<double>(layout.inputs() * layout.outputs()), layout.outputs()};
  layout.each([&](std::size_t at, std::size_t o, std::size_t i) {
    weight.values[i * weight.outputs + o] = static_cast<double>(values[at]);
  });
  weights_.push_back(std::move(weight));
}

std::vector<double> SmoothProblem::factors(double alpha) const {
  const std::size_t channels = min.size();
  std::vector<double> s(channels, 0);
  double logs = 0;
  std::size_t alive = 0;
  for (std::size_t j = 0; j < channels; ++j) {
    const double x = std::max(std::abs(static_cast<double>(min[j])), std::abs(static_cast<double>(max[j])));
    double w = 0;
    for (const Weight& weight : weights_)
      for (std::size_t o = 0; o < weight.outputs; ++o) w = std::max(w, std::abs(weight.values[j * weight.outputs + o]));
    if (!(x > 0 && w > 0)) continue;
    s[j] = std::pow(x, alpha) / std::pow(w, 1 - alpha);
    logs += std::log(s[j]);
    ++alive;
  }
  const double mean = alive == 0 ? 1 : std::exp(logs / static_cast<double>(alive));
  for (double& factor : s) factor = factor == 0 ? 1 : std::clamp(factor / mean, 1 / kMostFactor, kMostFactor);
  return s;
}

double SmoothProblem::error(const std::vector<double>& s) const {
  const std::size_t channels = min.size(), count = rows.size() / channels;
  double low = 0, high = 0;
  for (std::size_t j = 0; j < channels; ++j) {
    low = std::min(low, static_cast<double>(min[j]) / s[j]);
    high = std::max(high, static_cast<double>(max[j]) / s[j]);
  }
  const CodeRange x_codes = code_range(DType::u8, false), w_codes = code_range(DType::i8, true);
  const AffineParams params = choose_affine(static_cast<float>(low), static_cast<float>(high), x_codes, false);
  std::vector<double> exact(rows.begin(), rows.end()), rounded(rows.size());
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const auto scaled = static_cast<float>(static_cast<double>(rows[k]) / s[k % channels]);
    rounded[k] = static_cast<double>(dequantize_value(quantize_value(scaled, params, x_codes), params));
  }
  double noise = 0, signal = 0;
  for (const Weight& weight : weights_) {
    const std::size_t outputs = weight.outputs;
    std::vector<double> largest(outputs, 0), codes(weight.values.size());
    for (std::size_t k = 0; k < codes.size(); ++k) {
      codes[k] = weight.values[k] * s[k / outputs];
      largest[k % outputs] = std::max(largest[k % outputs], std::abs(codes[k]));
    }
    if (!per_channel) largest.assign(outputs, std::ranges::max(largest));
    for (std::size_t k = 0; k < codes.size(); ++k) {
      const auto top = static_cast<float>(largest[k % outputs]);
      const AffineParams scale = choose_affine(-top, top, w_codes, true);
      codes[k] = static_cast<double>(
          dequantize_value(quantize_value(static_cast<float>(codes[k]), scale, w_codes), scale));
    }
    std::vector<double> y(count * outputs), y_rounded(count * outputs);
    const GemmShape shape{.m = count, .n = outputs, .k = channels};
    gemm(shape, 1, exact, weight.values, 0, y);
    gemm(shape, 1, rounded, codes, 0, y_rounded);
    for (std::size_t k = 0; k < y.size(); ++k) {
      noise += (y_rounded[k] - y[k]) * (y_rounded[k] - y[k]);
      signal += y[k] * y[k];
    }
  }
  return signal > 0 ? noise / signal : 0;
}

}  // namespace onnxpress
