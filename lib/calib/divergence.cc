#include "calib/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "calib/rows.h"

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kLeastProbability = 1e-7;  // below it a float softmax, or one in 8 bits, says 0

// How many scores make a row: axis 1 when only axes of size 1 follow it, else the last axis.
std::size_t row_length(std::span<const std::int64_t> dims) {
  if (dims.empty()) return 1;
  const bool pooled = dims.size() > 2 && std::ranges::all_of(dims.subspan(2), [](auto dim) { return dim == 1; });
  return static_cast<std::size_t>(pooled ? dims[1] : dims.back());
}

}  // namespace

bool reads_tokens(const Graph& graph) {
  return std::ranges::any_of(graph.inputs(), [&](const std::string& input) {
    const ValueType type = graph.type(input);
    return is_integer(type.dtype) && type.rank() == 2;
  });
}

bool is_probabilities(const Graph& graph, const std::string& output) {
  constexpr std::array<std::string_view, 6> kViews = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast"};
  Node node = graph.producer(output);
  while (node && std::ranges::any_of(kViews, [&](std::string_view op) { return node.is(op); }))
    node = graph.producer(node.input(0));
  return node && node.is("Softmax");
}

OutputKind output_kind(const Graph& graph, const std::string& output) {
  const ValueType type = graph.type(output);
  const std::size_t rank = type.rank().value_or(reads_tokens(graph) ? 3 : 0);
  const auto is_one = [&](std::size_t axis) { return type.shape && type.dim(axis) == 1; };
  bool scores = rank >= 2 && !is_one(1);
  if (rank == 3) scores = reads_tokens(graph) && !is_one(2);
  for (std::size_t axis = 2; rank > 3 && axis < rank; ++axis) scores = scores && is_one(axis);
  if (!is_float(type.dtype) || !scores) return OutputKind::values;
  return is_probabilities(graph, output) ? OutputKind::probabilities : OutputKind::logits;
}

std::vector<double> log_probabilities(std::span<const float> scores, bool probabilities) {
  std::vector<double> logs(scores.begin(), scores.end());
  if (probabilities)
    for (double& value : logs) value = std::log(std::max(value, kLeastProbability));
  double largest = -kInf, sum = 0;
  for (const double value : logs) largest = std::max(largest, value);
  for (const double value : logs) sum += std::exp(value - largest);
  for (double& value : logs) value -= largest + std::log(sum);
  return logs;
}

double kl_divergence(std::span<const double> log_p, std::span<const double> log_q) {
  double sum = 0;
  for (std::size_t i = 0; i < log_p.size(); ++i)
    if (log_p[i] != -kInf) sum += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
  return std::isnan(sum) ? kInf : std::max(sum, 0.0);
}

void OutputDivergence::Sums::add(const Sums& other) {
  kl += other.kl;
  error += other.error;
  power += other.power;
  rows += other.rows;
}

double OutputDivergence::Sums::value() const {
  if (std::isinf(error)) return kInf;
  if (rows > 0) return kl / static_cast<double>(rows);
  return error == 0 ? 0 : error / power;  // infinity when there was nothing but zeros
}

OutputDivergence::Sums OutputDivergence::sums_of(std::span<const float> a, std::span<const float> b,
                                                 std::size_t classes) const {
  Sums sums;
  for (std::size_t row = 0; scores_ && classes > 1 && row + classes <= a.size(); row += classes) {
    const auto log_p = log_probabilities(a.subspan(row, classes), probabilities_);
    if (std::ranges::any_of(log_p, [](double value) { return std::isnan(value); })) continue;
    sums.kl += kl_divergence(log_p, log_probabilities(b.subspan(row, classes), probabilities_));
    ++sums.rows;
  }
  if (sums.rows > 0) return sums;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) continue;
    const double x = a[i], error = std::isfinite(b[i]) ? x - b[i] : kInf;
    sums.power += x * x;
    sums.error += error * error;
  }
  return sums;
}

std::any OutputDivergence::reduce(const TensorView& a, const TensorView& b) const {
  const auto before = to_floats(a), after = to_floats(b);
  if (!before || !after || !std::ranges::equal(a.dims, b.dims)) return std::vector<Sums>{{.error = kInf, .power = 1}};
  const std::size_t samples = a.dims.size() > 1 ? static_cast<std::size_t>(a.dims[0]) : 1;
  const std::size_t each = samples == 0 ? 0 : before->size() / samples;
  std::vector<Sums> sums;
  for (std::size_t n = 0; n < samples; ++n)
    sums.push_back(sums_of(std::span(*before).subspan(n * each, each), std::span(*after).subspan(n * each, each),
                           row_length(a.dims)));
  return sums;
}

void OutputDivergence::merge(std::any partial) {
  for (const Sums& sums : std::any_cast<const std::vector<Sums>&>(partial))
    folds_[onnxpress::held_out(samples_++) ? 1 : 0].add(sums);
}

double OutputDivergence::value() const {
  Sums all = folds_[0];
  all.add(folds_[1]);
  return all.value();
}

double OutputDivergence::held_out() const { return folds_[1].value(); }

Result<Divergence> measure_divergence(const Model& original, const Model& changed, Activations& activations) {
  const Graph& graph = original.main();
  std::vector<std::string> scored, plain;
  for (const std::string& output : graph.outputs())
    if (is_float(graph.type(output).dtype))
      (output_kind(graph, output) == OutputKind::values ? plain : scored).push_back(output);
  if (scored.empty()) scored = std::move(plain);
  if (scored.empty()) return fail(Code::unsupported, "the model has no output of floats to compare");
  std::vector<std::unique_ptr<OutputDivergence>> accumulators;
  std::vector<PairTap> taps;
  for (const std::string& output : scored) {
    const OutputKind kind = output_kind(graph, output);
    accumulators.push_back(
        std::make_unique<OutputDivergence>(kind != OutputKind::values, kind == OutputKind::probabilities));
    taps.push_back({output, output, accumulators.back().get()});
  }
  OP_TRY(activations.collect_pairs(original, changed, taps));
  Divergence mean;
  for (const auto& accumulator : accumulators) {
    mean.all += accumulator->value() / static_cast<double>(taps.size());
    mean.held_out += accumulator->held_out() / static_cast<double>(taps.size());
  }
  return mean;
}

Result<double> output_divergence(const Model& original, const Model& changed, Activations& activations) {
  OP_LET(const Divergence divergence, measure_divergence(original, changed, activations));
  return divergence.all;
}

}  // namespace onnxpress
