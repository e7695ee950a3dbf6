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
  const Mass inside = side.below((last + 0.5) * scale);
  error += (inside - before).count * scale * scale / 12;
  return error + squared_error(side.total() - inside, last * scale);
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

}  // namespace

double squared_error(const Density& density, AffineParams params, CodeRange codes) {
  const double scale = params.scale;
  return side_error(density.positive, scale, codes.max - params.zero_point) +
         side_error(density.negative, scale, params.zero_point - codes.min);
}

double divergence(const Density& density, AffineParams params, CodeRange codes) {
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
