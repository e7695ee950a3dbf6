// k-means of numbers: as few distinct values as a codebook holds, at the least squared error.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace onnxpress {

// At most `most` centres, ascending. `values` are finite and there is at least one. When they have no more distinct
// values than `most`, the centres are those. Lloyd's iterations from centres spread evenly between the least and the
// largest value (Han et al., "Deep Compression", arXiv 1510.00149, section 4: better for weights than density or
// random starts, since the few large weights matter most); a centre that loses all its values moves into the cluster
// of largest squared error. Deterministic; O(n log n + iterations k log n).
std::vector<double> cluster_centres(std::span<const double> values, std::size_t most, int iterations = 50);

// The index of the centre nearest to `value` (the lower one at ties). `centres` is ascending and not empty.
std::size_t nearest_centre(std::span<const double> centres, double value);

}  // namespace onnxpress
