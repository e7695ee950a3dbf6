#include "calib/cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

// Beyond so many codes a step is narrower than a bin: rounding errors are uniform, and differences of the running sums
// would lose their last digits.
constexpr std::int32_t kExactCodes = 512;

double squared_error(const Mass& mass, double value) {
  return std::max(mass.second - 2 * value * mass.first + value * value * mass.count, 0.0);
}

// Of the values beyond the outermost code.
double clipping_error(const SideDensity& side, double scale, std::int32_t last) {
  const double end = (last + 0.5) * scale;
  return end >= side.extreme() ? 0 : squared_error(side.total() - side.below(end), last * scale);
}

// Codes 0..last stand for 0, scale, ... last * scale.
double side_error(const SideDensity& side, double scale, std::int32_t last) {
  double error = 0;
  Mass before;
  const std::int32_t exact = std::min(last, kExactCodes);
  for (std::int32_t code = 0; code <= exact; ++code) {
    const bool outermost = code == last;
    const double end = (code + 0.5) * scale;
    const Mass until = outermost ? side.total() : side.below(end);
    error += squared_error(until - before, code * scale);
    if (outermost || end >= side.extreme()) return error;
    before = until;
  }
  error += (side.below((last + 0.5) * scale) - before).count * scale * scale / 12;
  return error + clipping_error(side, scale, last);
}

// Both signs share the code of zero; everything else is one code per interval.
struct Divergence {
  double sum = 0, inside = 0;
  void add(const Mass& mass) {
    inside += mass.count;
    if (mass.count > 0 && mass.width > 0) sum += mass.shape - mass.count * std::log(mass.count / mass.width);
  }
  // The outermost code, with `outside` values clipped to it.
  void add_clipped(const Mass& mass, double outside) {
    if (outside <= 0) return add(mass);
    if (mass.count <= 0) {
      sum = std::numeric_limits<double>::infinity();
      return;
    }
    const double share = 1 + outside / mass.count;
    inside += mass.count;
    if (mass.width > 0) sum += share * (mass.shape - mass.count * std::log(mass.count / mass.width));
    sum += (mass.count + outside) * std::log(share);
  }
};

// Codes 1..last of one sign; adds what belongs to code 0 to `center`, and what is clipped to it to `clipped`.
void side_divergence(const SideDensity& side, double scale, std::int32_t last, Divergence& out, Mass& center,
                     double& clipped) {
  Mass before = side.below(0.5 * scale);
  center += before;
  if (last == 0) clipped += side.total().count - before.count;
  for (std::int32_t code = 1; code <= last && before.count < side.total().count; ++code) {
    const Mass until = side.below((code + 0.5) * scale);
    out.add_clipped(until - before, code == last ? side.total().count - until.count : 0);
    before = until;
  }
}

// What the divergence comes to when nothing is lost between the outermost codes: a lower bound.
double clipping_divergence(const Density& density, AffineParams params, CodeRange codes) {
  double sum = 0, outside = 0;
  const auto add = [&](const SideDensity& side, std::int32_t last) {
    const double end = (last + 0.5) * params.scale;
    if (end >= side.extreme()) return;
    const Mass inside = side.below(end);
    const double clipped = side.total().count - inside.count;
    outside += clipped;
    if (last == 0 || clipped <= 0) return;
    const double own = inside.count - side.below((last - 0.5) * params.scale).count;
    sum += own > 0 ? (own + clipped) * std::log(1 + clipped / own) : HUGE_VAL;
  };
  add(density.positive, codes.max - params.zero_point);
  add(density.negative, params.zero_point - codes.min);
  if (outside >= density.count) return HUGE_VAL;
  return sum / density.count + std::log1p(-outside / density.count);
}

}  // namespace

double squared_error(const Density& density, AffineParams params, CodeRange codes, double limit) {
  const double scale = params.scale;
  const std::int32_t above = codes.max - params.zero_point, below = params.zero_point - codes.min;
  const double clipping =
      clipping_error(density.positive, scale, above) + clipping_error(density.negative, scale, below);
  if (clipping >= limit) return clipping;
  return side_error(density.positive, scale, above) + side_error(density.negative, scale, below);
}

double divergence(const Density& density, AffineParams params, CodeRange codes, double limit) {
  if (const double least = clipping_divergence(density, params, codes); least >= limit) return least;
  Divergence total;
  Mass center;
  double clipped = 0;
  side_divergence(density.positive, params.scale, codes.max - params.zero_point, total, center, clipped);
  side_divergence(density.negative, params.scale, params.zero_point - codes.min, total, center, clipped);
  total.add_clipped(center, clipped);
  total.inside += density.zeros;
  if (total.inside <= 0) return std::numeric_limits<double>::infinity();
  return total.sum / density.count + std::log(total.inside / density.count);
}

}  // namespace onnxpress
