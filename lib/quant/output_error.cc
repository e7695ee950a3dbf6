#include "quant/output_error.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "calib/divergence.h"
#include "num/scores.h"

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

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
