#include "repair/refit.h"

#include <algorithm>

#include "calib/gram.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kRowBytes = std::uint64_t{1} << 30;  // of rows without --memory-limit
constexpr std::uint64_t kSumBytes = std::uint64_t{4} << 30;  // of one layer's sums without it

}  // namespace

Refitter::Refitter(PassContext& context, const RepairOptions& options, bool keep_zeros)
    : context_(context),
      options_(options),
      keep_zeros_(keep_zeros),
      budget_(context.memory_limit == 0 ? kRowBytes : context.memory_limit / 4) {}

RowsOfLayer Refitter::output_rows(const RepairLayer& layer, const Indices& channels) const {
  return std::make_unique<RowsAccumulator>(
      [axis = layer.axis, channels, positions = positions(), seed = context_.seed](const TensorView& value) {
        return channel_rows(axis, value, positions, seed, channels);
      });
}

std::size_t Refitter::input_positions(const RepairLayer& layer, std::uint64_t samples) const {
  const std::uint64_t row = layer.regression.shape.groups * layer.regression.shape.length * sizeof(float);
  const std::uint64_t fit = budget_ / std::max<std::uint64_t>(1, samples * row);
  return static_cast<std::size_t>(std::clamp<std::uint64_t>(fit, 1, positions()));
}

RowsOfLayer Refitter::input_rows(const RepairLayer& layer, std::uint64_t samples) const {
  return std::make_unique<RowsAccumulator>([shape = layer.regression.shape, normalizes = layer.normalizes,
                                            positions = input_positions(layer, samples),
                                            seed = context_.seed](const TensorView& value) {
    return normalizes ? channel_rows(1, value, positions, seed) : patch_rows(shape, value, positions, seed);
  });
}

Result<Reconstruction> Refitter::refit(const RepairLayer& layer, const RowsAccumulator& input,
                                       const RowsAccumulator& target, const RowsAccumulator* shortcut,
                                       Rewriter& rewriter) const {
  // Sums, their centered copy and the factor.
  const std::uint64_t sums = 3 * gram_bytes(layer.regression.shape);
  if (sums > (context_.memory_limit == 0 ? kSumBytes : context_.memory_limit))
    return fail(Code::unsupported, "sums over its {} inputs would take {} MB", layer.regression.shape.length,
                sums >> 20);
  Regression regression = layer.regression;
  regression.input = &input;
  regression.target = &target;
  regression.shortcut = shortcut;
  regression.seed = context_.seed;
  OP_LET(const LinearWeights now, read_weights(layer));
  auto result = reconstruct(regression, now,
                            {.ridge = options_.ridge,
                             .keep_zeros = keep_zeros_ && !layer.normalizes,
                             .can_shift = layer.can_shift,
                             .jobs = context_.jobs});
  if (!result && result.error().code == Code::unsupported) return std::unexpected(std::move(result).error());
  if (!result) return rethrow(std::move(result).error(), "node '" + layer.node.label() + "'");
  if (result->change == Reconstruction::Change::exact)
    return fail(Code::unsupported, "its output is the original's as it is");
  if (result->change == Reconstruction::Change::none)
    return fail(Code::unsupported, "on held-out samples nothing does better than its output error of {:.2g} %",
                100 * result->error_before);
  const bool weights = result->change == Reconstruction::Change::weights;
  OP_LET(const bool written, write_weights(layer, result->weights, weights, rewriter));
  if (!written) return fail(Code::unsupported, "the new numbers do not fit its type");
  return result;
}

}  // namespace onnxpress
