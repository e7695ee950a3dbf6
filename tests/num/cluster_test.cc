#include "num/cluster.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "support/models.h"

namespace onnxpress {
namespace {

std::vector<double> bell(std::size_t count, unsigned seed) {
  const auto a = testing::random_floats(count, seed), b = testing::random_floats(count, seed + 1),
             c = testing::random_floats(count, seed + 2);
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = double{a[i]} + double{b[i]} + double{c[i]};
  return values;
}

double error_of(const std::vector<double>& values, const std::vector<double>& centres) {
  double error = 0;
  for (const double value : values) {
    double best = std::numeric_limits<double>::infinity();
    for (const double centre : centres) best = std::min(best, (value - centre) * (value - centre));
    error += best;
  }
  return error;
}

// The least error of k clusters, by trying every border.
double optimum(std::vector<double> values, std::size_t k) {
  std::ranges::sort(values);
  const auto cost = [&](std::size_t begin, std::size_t end) {
    double mean = 0, error = 0;
    for (std::size_t i = begin; i < end; ++i) mean += values[i] / static_cast<double>(end - begin);
    for (std::size_t i = begin; i < end; ++i) error += (values[i] - mean) * (values[i] - mean);
    return error;
  };
  std::vector<double> best(values.size() + 1, std::numeric_limits<double>::infinity());
  best[0] = 0;
  for (std::size_t clusters = 0; clusters < k; ++clusters) {
    std::vector<double> next(best.size(), std::numeric_limits<double>::infinity());
    for (std::size_t end = 1; end < best.size(); ++end)
      for (std::size_t begin = 0; begin < end; ++begin) next[end] = std::min(next[end], best[begin] + cost(begin, end));
    best = next;
  }
  return best.back();
}

TEST_CASE("cluster_centres: few distinct values are the centres") {
  CHECK(cluster_centres(std::vector<double>{3, 1, 3, 2, 1}, 3) == std::vector<double>{1, 2, 3});
  CHECK(cluster_centres(std::vector<double>{5, 5}, 1) == std::vector<double>{5});
  CHECK(cluster_centres(std::vector<double>{1, 3}, 1) == std::vector<double>{2});
}

TEST_CASE("cluster_centres: as many as asked for, each the mean of what is nearest to it") {
  const std::vector<double> values = bell(5000, 3);
  const std::vector<double> centres = cluster_centres(values, 16, 2000);
  REQUIRE(centres.size() == 16);
  CHECK(std::ranges::is_sorted(centres));
  std::vector<double> sums(16), counts(16);
  for (const double value : values) {
    const std::size_t at = nearest_centre(centres, value);
    sums[at] += value;
    ++counts[at];
  }
  for (std::size_t c = 0; c < 16; ++c) {
    REQUIRE(counts[c] > 0);
    CHECK(centres[c] == Catch::Approx(sums[c] / counts[c]).margin(1e-9));
  }
}

TEST_CASE("cluster_centres: close to the optimum, with far values too") {
  std::vector<double> values = bell(60, 5);
  CHECK(error_of(values, cluster_centres(values, 5)) < 1.3 * optimum(values, 5));
  values.push_back(1000);  // evenly spread centres would nearly all be empty
  CHECK(error_of(values, cluster_centres(values, 6)) < 1.3 * optimum(values, 6));
}

TEST_CASE("nearest_centre is the nearest") {
  const std::vector<double> centres = {-2, 0, 1, 5};
  for (const double value : bell(200, 9)) {
    const double distance = std::abs(centres[nearest_centre(centres, 3 * value)] - 3 * value);
    for (const double centre : centres) CHECK(distance <= std::abs(centre - 3 * value));
  }
  CHECK(nearest_centre(centres, -1) == 0);  // the lower one of two
}

}  // namespace
}  // namespace onnxpress
