#include "quant/output_error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "num/scores.h"

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kLeastProbability = 1e-7;  // below it a float softmax, or one in 8 bits, says 0

struct ErrorSums {
  double signal = 0, error = 0;       // sums of squares
  std::uint64_t broken = 0;           // elements that are a number in one of the two models only
  std::uint64_t rows = 0, agree = 0;  // of classes
  double kl = 0;

  void merge(const ErrorSums& other) {
    signal += other.signal;
    error += other.error;
    broken += other.broken;
    rows += other.rows;
    agree += other.agree;
    kl += other.kl;
  }
};

// log(softmax(scores)); of probabilities, their logarithms.
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

class ErrorAccumulator : public PairAccumulator {
 public:
  ErrorAccumulator(bool per_position, bool probabilities)
      : per_position_(per_position), probabilities_(probabilities) {}

  std::any reduce(const TensorView& a, const TensorView& b) const override {
    ErrorSums sums;
    const auto before = to_floats(a), after = to_floats(b);
    if (!before || !after || !std::ranges::equal(a.dims, b.dims)) {
      sums.broken = 1;
      return sums;
    }
    for (std::size_t i = 0; i < before->size(); ++i) {
      const double x = (*before)[i], y = (*after)[i];
      if (x == y || (std::isnan(x) && std::isnan(y))) {
        if (std::isfinite(x)) sums.signal += x * x;
        continue;
      }
      if (!std::isfinite(x) || !std::isfinite(y)) {
        ++sums.broken;
        continue;
      }
      sums.signal += x * x;
      sums.error += (x - y) * (x - y);
    }
    auto shape = score_shape(a, false);
    if (!shape && per_position_) shape = score_shape(a, true);
    if (shape) add_rows(*before, *after, *shape, sums);
    return sums;
  }
  void merge(std::any partial) override { sums_.merge(std::any_cast<const ErrorSums&>(partial)); }
  const ErrorSums& sums() const { return sums_; }

 private:
  void add_rows(std::span<const float> a, std::span<const float> b, const ScoreShape& shape, ErrorSums& sums) const {
    for (std::size_t row = 0; row < shape.rows; ++row) {
      const auto x = a.subspan(row * shape.classes, shape.classes), y = b.subspan(row * shape.classes, shape.classes);
      ++sums.rows;
      sums.agree += arg_max(x) == arg_max(y);
      sums.kl += kl_divergence(log_probabilities(x, probabilities_), log_probabilities(y, probabilities_));
    }
  }

  bool per_position_, probabilities_;
  ErrorSums sums_;
};

bool reads_tokens(const Graph& graph) {
  return std::ranges::any_of(graph.inputs(), [&](const std::string& input) {
    const ValueType type = graph.type(input);
    return is_integer(type.dtype) && type.shape && type.shape->size() == 2;
  });
}

// Whether the value is a Softmax, seen through operators that only give it another shape.
bool is_probabilities(const Graph& graph, const std::string& output) {
  constexpr std::array<std::string_view, 6> kViews = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast"};
  Node node = graph.producer(output);
  while (node && std::ranges::any_of(kViews, [&](std::string_view op) { return node.is(op); }))
    node = graph.producer(node.input(0));
  return node && node.is("Softmax");
}

}  // namespace

double OutputError::sqnr_db() const { return noise == 0 ? kInf : -10 * std::log10(noise); }

double OutputError::drop() const { return agreement ? 100 - *agreement : 100 * noise; }

Result<OutputError> compare_outputs(Activations& activations, const Model& reference, const Model& variant) {
  const Graph& graph = reference.main();
  const bool tokens = reads_tokens(graph);
  std::vector<std::unique_ptr<ErrorAccumulator>> accumulators;
  std::vector<PairTap> taps;
  for (const std::string& output : graph.outputs()) {
    const DType dtype = graph.type(output).dtype;
    if (!is_float(dtype) && !is_integer(dtype) && dtype != DType::boolean) continue;
    accumulators.push_back(std::make_unique<ErrorAccumulator>(tokens, is_probabilities(graph, output)));
    taps.push_back({output, output, accumulators.back().get()});
  }
  if (taps.empty()) return fail(Code::unsupported, "the model has no output of numbers to compare");
  OP_TRY(activations.collect_pairs(reference, variant, taps));
  OutputError total;
  for (const auto& accumulator : accumulators) {
    const ErrorSums& sums = accumulator->sums();
    double noise = sums.error == 0 ? 0 : sums.error / sums.signal;
    if (sums.broken > 0) noise = kInf;
    total.noise = std::max(total.noise, noise);
    if (sums.rows == 0 || total.kl) continue;
    total.kl = sums.kl / static_cast<double>(sums.rows);
    total.agreement = 100 * static_cast<double>(sums.agree) / static_cast<double>(sums.rows);
  }
  return total;
}

}  // namespace onnxpress
