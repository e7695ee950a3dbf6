// A histogram as a density: values lie evenly within their bin. Integrals over any interval cost two look-ups, so that
// the error of a whole grid of codes is a sum over codes, not over bins.
#pragma once

#include <vector>

#include "calib/statistics.h"

namespace onnxpress {

// Over the magnitudes of one sign, or a difference of two of them: an interval.
struct Mass {
  double count = 0;
  double first = 0, second = 0;  // sums of |x| and x^2
  double shape = 0;              // sum over bins of count * ln(count / width)
  double width = 0;              // of the bins that are not empty
  Mass operator-(const Mass& other) const;
  Mass& operator+=(const Mass& other);
};

// One sign of a histogram, its outermost bin cut at the exact extreme.
class SideDensity {
 public:
  SideDensity(const Histogram& histogram, Histogram::Side side, double extreme);
  Mass below(double magnitude) const;  // of the magnitudes in (0, magnitude)
  const Mass& total() const { return sums_.back(); }
  double extreme() const { return extreme_; }  // the largest magnitude; 0 = no value of this sign

 private:
  const Histogram& histogram_;
  double extreme_;
  std::size_t first_ = 0;   // the lowest bin that is not empty
  std::vector<Mass> sums_;  // of all bins before first_ + i
};

struct Density {
  explicit Density(const ValueStatistics& statistics);
  SideDensity positive, negative;
  double zeros;  // count of values that are 0
  double count;
};

}  // namespace onnxpress
