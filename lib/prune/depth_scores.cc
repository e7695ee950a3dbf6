#include "prune/depth_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "calib/divergence.h"

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Rows {
  double sum = 0;
  std::uint64_t count = 0;
  bool usable = true;
};

}  // namespace

std::any Influence::reduce(const TensorView& a, const TensorView& b) const {
  Rows rows;
  const auto before = to_floats(a), after = to_floats(b);
  if (!before || !after || a.dims.empty() || !std::ranges::equal(a.dims, b.dims)) return Rows{.usable = false};
  const std::size_t axis = channels_first_ && a.dims.size() > 1 ? 1 : a.dims.size() - 1;
  const auto length = static_cast<std::size_t>(a.dims[axis]);
  const std::size_t inner = element_count(a.dims.subspan(axis + 1)).value_or(0);
  const std::size_t outer = length * inner == 0 ? 0 : before->size() / (length * inner);
  for (std::size_t row = 0; row < outer * inner; ++row) {
    const std::size_t start = row / inner * length * inner + row % inner;
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t i = start; i < start + length * inner; i += inner) {
      const double x = (*before)[i], y = (*after)[i];
      xy += x * y;
      xx += x * x;
      yy += y * y;
    }
    const double cosine = xy / std::sqrt(xx * yy);
    if (!std::isfinite(cosine)) continue;
    rows.sum += 1 - cosine;
    ++rows.count;
  }
  return rows;
}

void Influence::merge(std::any partial) {
  const Rows rows = std::any_cast<Rows>(partial);
  sum_ += rows.sum;
  rows_ += rows.count;
  same_shape_ = same_shape_ && rows.usable;
}

std::any NextTokenLoss::reduce(const TensorView& tokens, const TensorView& logits) const {
  const auto ids = to_int64s(tokens);
  const auto scores = to_floats(logits);
  if (!ids || !scores || tokens.dims.size() != 2 || logits.dims.size() != 3 ||
      !std::ranges::equal(tokens.dims, logits.dims.first(2)))
    return Rows{.sum = kInf, .count = 1};
  Rows rows;
  const auto length = static_cast<std::size_t>(tokens.dims[1]), classes = static_cast<std::size_t>(logits.dims[2]);
  for (std::size_t at = 0; at < ids->size(); ++at) {
    if (at % length == length - 1) continue;
    const std::int64_t next = (*ids)[at + 1];
    if (next < 0 || static_cast<std::size_t>(next) >= classes) return Rows{.sum = kInf, .count = 1};
    const auto logs = log_probabilities(std::span(*scores).subspan(at * classes, classes), false);
    rows.sum -= logs[static_cast<std::size_t>(next)];
    ++rows.count;
  }
  return rows;
}

void NextTokenLoss::merge(std::any partial) {
  const Rows rows = std::any_cast<Rows>(partial);
  sum_ += rows.sum;
  tokens_ += rows.count;
}

double NextTokenLoss::value() const {
  if (tokens_ == 0 || std::isnan(sum_)) return kInf;
  return sum_ / static_cast<double>(tokens_);
}

Result<double> next_token_loss(const Model& original, const Model& changed, Activations& activations) {
  const Graph& graph = original.main();
  std::string tokens, logits;
  for (const std::string& input : graph.inputs()) {
    const ValueType type = graph.type(input);
    if (!is_integer(type.dtype) || type.rank() != 2) continue;
    if (tokens.empty() || input == "input_ids") tokens = input;
  }
  for (const std::string& output : graph.outputs()) {
    const ValueType type = graph.type(output);
    if (logits.empty() && is_float(type.dtype) && type.rank().value_or(3) == 3) logits = output;
  }
  if (tokens.empty() || logits.empty())
    return fail(Code::unsupported, "perplexity needs an input of tokens [N, S] and an output of logits [N, S, V]");
  NextTokenLoss loss;
  const PairTap tap{tokens, logits, &loss};
  OP_TRY(activations.collect_pairs(original, changed, {&tap, 1}));
  return loss.value();
}

}  // namespace onnxpress
