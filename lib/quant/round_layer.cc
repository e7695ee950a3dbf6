#include "quant/round_layer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/parallel.h"
#include "quant/rounding.h"

namespace onnxpress {
namespace {

constexpr std::array kDampings = {0.003, 0.03, 0.3};
constexpr int kBiasBits = 12;            // of a typical output
constexpr double kDefaultDamping = 0.1;  // nothing to choose it by

std::span<const std::int32_t> codes_of(const LayerNumbers& numbers, std::size_t channel, std::size_t k) {
  return std::span(numbers.codes).subspan(channel * k, k);
}

double dot(std::span<const std::int32_t> q, std::span<const double> x) {
  double sum = 0;
  for (std::size_t k = 0; k < q.size(); ++k) sum += q[k] * x[k];
  return sum;
}

double quadratic(std::span<const std::int32_t> q, std::span<const double> gram) {
  double sum = 0;
  for (std::size_t i = 0; i < q.size(); ++i) sum += q[i] * dot(q, gram.subspan(i * q.size(), q.size()));
  return sum;
}

RoundingLimits limits_of(const QuantizedLayer& layer, const LayerNumbers& numbers, std::size_t channel,
                         const RoundLayerSettings& settings) {
  RoundingLimits limits{.codes = numbers.range, .max_move = settings.max_move, .pairs = numbers.pairs};
  if (layer.bias_kind != BiasKind::floating && layer.can_shift() && layer.input_scale)
    limits.least_scale = least_weight_scale(numbers.bias[channel], *layer.input_scale);
  return limits;
}

// The layer rounded anew on these rows.
Result<LayerNumbers> rounded(const QuantizedLayer& layer, const LayerNumbers& numbers, const Gram& gram, double damping,
                             RoundingEffort effort, const RoundLayerSettings& settings) {
  effort.scales = effort.scales && layer.per_channel;
  LayerNumbers out = numbers;
  if (layer.can_shift()) out.bias = fitted_bias(numbers, gram);
  const std::size_t k = layer.shape.length, per_group = layer.shape.outputs_per_group();
  for (std::size_t group = 0; group < layer.shape.groups; ++group) {
    OP_LET(const RoundingSolver solver, RoundingSolver::make(gram.xx_copy(group, layer.can_shift()), k, damping));
    OP_TRY(parallel_for(per_group, settings.jobs, [&](std::size_t i) -> Status {
      const std::size_t channel = group * per_group + i;
      const RoundedChannel result =
          solver.solve(std::span(numbers.weight).subspan(channel * k, k), gram.yx_copy(channel, layer.can_shift()),
                       numbers.scales[channel], limits_of(layer, out, channel, settings), effort);
      std::ranges::copy(result.codes, out.codes.begin() + static_cast<std::ptrdiff_t>(channel * k));
      out.scales[channel] = result.scale;
      return {};
    }));
  }
  if (layer.can_shift()) out.bias = fitted_bias(out, gram);
  return out;
}

// Relative error of the whole layer. Channels count by their power, as the layer behind sees them.
double relative_error(const LayerNumbers& numbers, const Gram& gram) {
  const std::vector<double> errors = output_errors(numbers, gram);
  const double power = std::accumulate(gram.yy.begin(), gram.yy.end(), 0.0);
  const double error = std::accumulate(errors.begin(), errors.end(), 0.0);
  return power > 0 ? std::max(error, 0.0) / power : 0;
}

struct Choice {
  bool shift = false;
  std::optional<double> damping = {};
  double error = std::numeric_limits<double>::infinity();
};

Result<Choice> choose(const QuantizedLayer& layer, const LayerNumbers& numbers, const Gram& fitted,
                      const Gram& held_out, const RoundLayerSettings& settings) {
  if (held_out.rows == 0) return Choice{layer.can_shift(), settings.damping.value_or(kDefaultDamping)};
  Choice best{false, {}, relative_error(numbers, held_out)};
  if (layer.can_shift()) {
    LayerNumbers shifted = numbers;
    shifted.bias = fitted_bias(numbers, fitted);
    if (const double error = relative_error(shifted, held_out); error < best.error) best = {true, {}, error};
  }
  std::vector<double> dampings(kDampings.begin(), kDampings.end());
  if (settings.damping) dampings = {*settings.damping};
  for (const double damping : dampings) {
    OP_LET(const LayerNumbers trial,
           rounded(layer, numbers, fitted, damping, {.scales = false, .pairs = false}, settings));
    if (const double error = relative_error(trial, held_out); error < best.error)
      best = {layer.can_shift(), damping, error};
  }
  return best;
}

}  // namespace

std::vector<double> output_errors(const LayerNumbers& numbers, const Gram& gram) {
  const std::size_t k = gram.shape.length, per_group = gram.shape.outputs_per_group();
  std::vector<double> errors;
  for (std::size_t c = 0; c < gram.shape.outputs; ++c) {
    const auto q = codes_of(numbers, c, k);
    const double s = numbers.scales[c], b = numbers.bias[c];
    const double mean = s * dot(q, gram.x_of(c / per_group));  // sum over rows of s q x
    errors.push_back(gram.yy[c] - 2 * s * dot(q, gram.yx_of(c)) + s * s * quadratic(q, gram.xx_of(c / per_group)) -
                     2 * b * (gram.y[c] - mean) + static_cast<double>(gram.rows) * b * b);
  }
  return errors;
}

std::vector<double> fitted_bias(const LayerNumbers& numbers, const Gram& gram) {
  const std::size_t k = gram.shape.length, per_group = gram.shape.outputs_per_group();
  std::vector<double> bias;
  for (std::size_t c = 0; c < gram.shape.outputs; ++c) {
    const double predicted = numbers.scales[c] * dot(codes_of(numbers, c, k), gram.x_of(c / per_group));
    const auto rows = static_cast<double>(gram.rows);
    bias.push_back(round_to_bits((gram.y[c] - predicted) / rows, std::sqrt(gram.yy[c] / rows), kBiasBits));
  }
  return bias;
}

Result<RoundLayerResult> round_layer(const QuantizedLayer& layer, const LayerNumbers& numbers, const Gram& fitted,
                                     const Gram& held_out, const RoundLayerSettings& settings) {
  RoundLayerResult result{.numbers = numbers};
  const Gram& judge = held_out.rows > 0 ? held_out : fitted;
  result.error_before = relative_error(numbers, judge);
  OP_LET(const Choice choice, choose(layer, numbers, fitted, held_out, settings));
  Gram all = fitted;
  all.add(held_out);
  result.rounded = choice.damping.has_value();
  result.shifted = choice.shift;
  result.damping = choice.damping.value_or(0);
  if (result.rounded) {
    OP_LET(result.numbers, rounded(layer, numbers, all, *choice.damping, {.scales = settings.scales}, settings));
  } else if (result.shifted) {
    result.numbers.bias = fitted_bias(numbers, all);
  }
  result.error_after = held_out.rows > 0 ? choice.error : relative_error(result.numbers, fitted);
  return result;
}

}  // namespace onnxpress
