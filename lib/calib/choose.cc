#include "calib/choose.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "calib/cost.h"

namespace onnxpress {
namespace {

// The grid of candidate bounds: 8 an octave, down to a 4096th of what was seen; then 64 an octave around the best.
constexpr int kCoarse = 8, kFine = 64, kGrid = 12 * kCoarse;
constexpr int kRounds = 4;
// Clipping must save this share of the squared error before `auto` prefers it: the error of a clipped value weighs
// more in a network than its square, because all of it has one sign.
constexpr double kWorthClipping = 0.8;
// A sample is odd when it reaches so many times what samples reach on average.
constexpr double kOddSample = 3;
// Codes of more than 12 bits are narrower than bins: only clipping could differ, so entropy keeps everything.
constexpr std::int64_t kMostEntropyCodes = 4096;

// 2^(n / kFine), from roots and products only: exp2() of the C library may differ by a bit from processor to processor.
double fine_power(int n) {
  static const std::array<double, kFine> parts = [] {
    double root = 2;
    for (int k = 1; k < kFine; k *= 2) root = std::sqrt(root);
    std::array<double, kFine> powers = {1};
    for (std::size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * root;
    return powers;
  }();
  const int octave = n >= 0 ? n / kFine : -((kFine - 1 - n) / kFine);
  return std::ldexp(parts[static_cast<std::size_t>(n - octave * kFine)], octave);
}

struct Ends {
  double low = 0, high = 0;
};

Ends seen(const ValueStatistics& statistics) {
  return {std::min(statistics.range.min, 0.0F), std::max(statistics.range.max, 0.0F)};
}

AffineParams params_of(Ends ends, CodeRange codes, bool symmetric) {
  return choose_affine(static_cast<float>(ends.low), static_cast<float>(ends.high), codes, symmetric);
}

using Cost = std::function<double(const Density&, AffineParams, CodeRange, double limit)>;

// The cheapest ends, found by scans along one end at a time: the cost has one broad valley in each.
class Search {
 public:
  Search(const Density& density, CodeRange codes, bool symmetric, Cost cost)
      : density_(density), codes_(codes), symmetric_(symmetric), cost_(std::move(cost)) {}

  Ends best_within(Ends all) {
    if (symmetric_) {
      all.high = std::max(-all.low, all.high);
      all.low = -all.high;
    }
    try_ends(all);
    for (int i = 1; i <= kGrid; ++i) try_ends({all.low * factor(i), all.high * factor(i)});
    if (!symmetric_ && all.low < 0 && all.high > 0) {
      scan_ends(all);
      refine_ends(all);
    } else {
      const Ends start = best_;
      for (int i = -kFine / kCoarse; i <= kFine / kCoarse; ++i) {
        const double by = fine_power(i);
        try_ends({std::max(start.low * by, all.low), std::min(start.high * by, all.high)});
      }
    }
    return best_;
  }

 private:
  static double factor(int i) { return fine_power(-i * (kFine / kCoarse)); }

  void scan_ends(Ends all) {
    const double most = std::max(-all.low, all.high);
    for (int i = 1; i <= kGrid; ++i)
      try_ends({std::max(all.low, -most * factor(i)), std::min(all.high, most * factor(i))});
    for (int round = 0; round < kRounds; ++round) {
      const double before = least_;
      for (int i = 0; i <= kGrid; ++i) try_ends({best_.low, all.high * factor(i)});
      for (int i = 0; i <= kGrid; ++i) try_ends({all.low * factor(i), best_.high});
      if (least_ >= before) break;
    }
  }

  void refine_ends(Ends all) {
    for (int round = 0; round < 2; ++round) {
      const double high = best_.high;
      for (int i = -kFine / kCoarse; i <= kFine / kCoarse; ++i)
        try_ends({best_.low, std::min(high * fine_power(i), all.high)});
      const double low = best_.low;
      for (int i = -kFine / kCoarse; i <= kFine / kCoarse; ++i)
        try_ends({std::max(low * fine_power(i), all.low), best_.high});
    }
  }

  void try_ends(Ends ends) {
    const double cost = cost_(density_, params_of(ends, codes_, symmetric_), codes_, least_);
    if (cost >= least_) return;
    least_ = cost;
    best_ = ends;
  }

  const Density& density_;
  CodeRange codes_;
  bool symmetric_;
  Cost cost_;
  Ends best_;
  double least_ = std::numeric_limits<double>::infinity();
};

// The smallest magnitude that at most `above` values of the sides exceed, to the accuracy of a bin.
double bound(const ValueStatistics& statistics, std::initializer_list<Histogram::Side> sides, double above) {
  const Histogram& histogram = statistics.histogram;
  double extreme = 0;
  for (const auto side : sides)
    extreme = std::max<double>(extreme, side == Histogram::positive ? statistics.range.max : -statistics.range.min);
  std::uint64_t beyond = 0;
  for (std::size_t i = Histogram::kBins; i-- > 0;) {
    for (const auto side : sides)
      if (!histogram.side(side).empty()) beyond += histogram.side(side)[i];
    if (static_cast<double>(beyond) > above) return std::min<double>(histogram.edge(i + 1), extreme);
  }
  return 0;
}

Ends percentile_ends(const ValueStatistics& statistics, double percentile, bool symmetric) {
  const double outside = static_cast<double>(statistics.histogram.count()) * (100 - percentile) / 100;
  if (symmetric) {
    const double most = bound(statistics, {Histogram::positive, Histogram::negative}, outside);
    return {-most, most};
  }
  return {-bound(statistics, {Histogram::negative}, outside / 2),
          bound(statistics, {Histogram::positive}, outside / 2)};
}

Ends least_mse(const ValueStatistics& statistics, CodeRange codes, bool symmetric) {
  const Density density(statistics);
  return Search(density, codes, symmetric, squared_error).best_within(seen(statistics));
}

Ends least_divergence(const ValueStatistics& statistics, CodeRange codes, bool symmetric) {
  if (std::int64_t{codes.max} - codes.min > kMostEntropyCodes) return seen(statistics);
  const Density density(statistics);
  return Search(density, codes, symmetric, divergence).best_within(seen(statistics));
}

// A few samples reach far beyond the others (a silent recording among spoken ones): the squared error would be spent on
// them alone.
bool has_odd_samples(const ValueStatistics& statistics) {
  const Ends all = seen(statistics);
  return all.high > kOddSample * std::max(statistics.mean_of_max(), 0.0) ||
         -all.low > kOddSample * std::max(-statistics.mean_of_min(), 0.0);
}

// Least squared error when clipping pays, else everything; with odd samples least divergence, which counts values
// rather than their size. Never less than what a sample reaches on average: an outlier that every sample has (the first
// token of a language model) means something.
Ends automatic_ends(const ValueStatistics& statistics, CodeRange codes, bool symmetric) {
  const Ends all = seen(statistics);
  if (has_odd_samples(statistics)) {
    Ends ends = least_divergence(statistics, codes, symmetric);
    ends.low = std::min(ends.low, statistics.mean_of_min());
    ends.high = std::max(ends.high, statistics.mean_of_max());
    return ends;
  }
  const Density density(statistics);
  const Ends clipped = Search(density, codes, symmetric, squared_error).best_within(all);
  const double loss = squared_error(density, params_of(clipped, codes, symmetric), codes);
  return loss < kWorthClipping * squared_error(density, params_of(all, codes, symmetric), codes) ? clipped : all;
}

Ends choose_ends(const ValueStatistics& statistics, const RangeSettings& settings, CodeRange codes, bool symmetric) {
  switch (settings.method) {
    case RangeMethod::moving_average:
      return {statistics.mean_of_min(), statistics.mean_of_max()};
    case RangeMethod::global:
      return {statistics.range.min < 0 ? -settings.threshold : 0, statistics.range.max > 0 ? settings.threshold : 0};
    case RangeMethod::percentile:
      return percentile_ends(statistics, settings.percentile, symmetric);
    case RangeMethod::entropy:
      return least_divergence(statistics, codes, symmetric);
    case RangeMethod::mse:
      return least_mse(statistics, codes, symmetric);
    case RangeMethod::automatic:
      return automatic_ends(statistics, codes, symmetric);
    default:
      return seen(statistics);
  }
}

}  // namespace

void RangeSettings::describe(Schema<RangeSettings>& schema) {
  schema
      .add("method", &RangeSettings::method,
           {{"auto", RangeMethod::automatic},
            {"minmax", RangeMethod::minmax},
            {"moving-average", RangeMethod::moving_average},
            {"percentile", RangeMethod::percentile},
            {"entropy", RangeMethod::entropy},
            {"mse", RangeMethod::mse},
            {"global", RangeMethod::global}},
           "how the range of an activation is chosen: everything that was seen (minmax), the mean of the samples' "
           "extremes (moving-average), all but the outermost values (percentile), least information lost (entropy), "
           "least squared error (mse), one threshold for all (global); auto takes mse where "
           "clipping saves much of the squared error, entropy where a few odd samples would decide that, else minmax")
      .add("percentile", &RangeSettings::percentile,
           "of method=percentile: this share of the values is kept, in per "
           "cent; the rest is cut half at either end",
           {.min = 50, .max = 100})
      .add("threshold", &RangeSettings::threshold, "of method=global: ranges end at +- this", {.min = 0, .max = {}})
      .add("stats", &RangeSettings::stats,
           "file of onnxpress calibrate, or of ranges as JSON, to take instead of running samples");
}

Status RangeSettings::check() const {
  if (method == RangeMethod::global && !(threshold > 0)) return fail(Code::usage, "method=global needs threshold=");
  return {};
}

bool RangeSettings::needs_histogram() const {
  return method == RangeMethod::automatic || method == RangeMethod::percentile || method == RangeMethod::entropy ||
         method == RangeMethod::mse;
}

ValueRange choose_range(const ValueStatistics& statistics, const RangeSettings& settings, DType dtype, bool symmetric) {
  ValueRange range = statistics.range;
  if (range.empty()) return range;
  RangeSettings usable = settings;
  if (settings.needs_histogram() && statistics.histogram.empty()) usable.method = RangeMethod::minmax;
  const Ends ends = choose_ends(statistics, usable, code_range(dtype, symmetric), symmetric);
  const Ends all = settings.method == RangeMethod::global ? ends : seen(statistics);
  range.min = static_cast<float>(std::clamp(ends.low, all.low, 0.0));
  range.max = static_cast<float>(std::clamp(ends.high, 0.0, all.high));
  return range;
}

double quantization_mse(const ValueStatistics& statistics, const ValueRange& range, DType dtype, bool symmetric) {
  const Density density(statistics);
  if (density.count == 0) return 0;
  const CodeRange codes = code_range(dtype, symmetric);
  return squared_error(density, choose_affine(range.min, range.max, codes, symmetric), codes) / density.count;
}

double mean_square(const ValueStatistics& statistics) {
  const Density density(statistics);
  if (density.count == 0) return 0;
  return (density.positive.total().second + density.negative.total().second) / density.count;
}

}  // namespace onnxpress
