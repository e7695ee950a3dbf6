// Channel-OBS: units in the order in which they can go when the layers that read them are refitted after each.
//
//   reader:  y = W x,  H = E[x x^T]     removing the columns c of W costs   tr(W_c B W_c^T),   B = inv([H^-1]_cc)
//   and leaves   W -= W_c B [H^-1]_c,:     H^-1 -= [H^-1]_:,c B [H^-1]_c,:
//
// Greedy: the unit of least cost, summed over its readers relative to the power of their outputs, goes first; then the
// costs are those of what is left. Source: Hassibi & Stork, "Second order derivatives for network pruning: Optimal
// Brain Surgeon" (NeurIPS 1992), for whole channels; Frantar & Alistarh, "Optimal Brain Compression" (arXiv
// 2208.11580).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "depend/axes.h"

namespace onnxpress {

// One layer that reads the units (of a grouped convolution: one group). Columns are those of the units alone.
struct ObsReader {
  std::size_t outputs = 0, columns = 0;
  std::vector<double> inverse = {};   // [columns, columns] of the inverse of the damped second moments of its input
  std::vector<double> weight = {};    // [outputs, columns]
  std::vector<Indices> of_unit = {};  // the columns of each unit, disjoint
  double power = 1;                   // of its output; 0 leaves the reader out
};

// The inverse of `moments` [n, n] with `damping` times the mean of the diagonal added to it; empty when it has none
// (no finite numbers). All zeros give the identity.
std::vector<double> damped_inverse(std::vector<double> moments, std::size_t n, double damping);

// What each unit costs at the time it goes, never less than the one before it; units that are still there after `most`
// removals cost what they would then.
std::vector<double> obs_costs(std::vector<ObsReader> readers, std::size_t units, std::size_t most);

}  // namespace onnxpress
