// How much of each part of a network can go before its outputs notice: every part is pruned alone, by each of several
// ratios, and the outputs are compared with those of the whole network.
//
//   part = the weight of one layer       the weights of least magnitude become zero      (magnitude)
//   part = one group of tied units       the units of least group norm are cut out       (channels)
//
// Nothing is repaired: what a repair would win is not in these numbers. Sources: Li et al., "Pruning Filters for
// Efficient ConvNets" (arXiv 1608.08710), section 3.2; He et al., "AMC" (arXiv 1802.03494) starts from such curves.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress {

enum class PruneMethod { magnitude, channels };
const char* prune_method_name(PruneMethod method);  // the pass: "prune-magnitude"

// One part pruned by one ratio.
struct PruneEffect {
  double ratio = 0;                        // asked for
  std::uint64_t left = 0;                  // of the part's weights or units
  double divergence = 0;                   // of the outputs; infinite when they are no numbers
  std::uint64_t macs = 0, parameters = 0;  // of the whole model then; zeros still count
};

struct PruneSensitivity {
  std::string name;                       // label of the first node that reads the weight, or name of the group
  std::string kind;                       // "Conv [64, 3, 3, 3]", "channels"
  std::uint64_t size = 0;                 // weights, or units
  std::vector<PruneEffect> effects = {};  // by ascending ratio
  std::string refusal = {};               // why a ratio could not be tried
};

struct PruneSensitivityTable {
  PruneMethod method = PruneMethod::magnitude;
  std::uint64_t macs = 0, parameters = 0;  // of the model as it is
  std::vector<double> ratios;              // ascending
  std::vector<PruneSensitivity> parts;     // in graph order
};

// On the samples of `compare_on`. `ratios` are in (0, 1). Errors: usage for bad ratios, those of Activations.
Result<PruneSensitivityTable> measure_prune_sensitivity(const Model& model, PassContext& context, PruneMethod method,
                                                        std::vector<double> ratios, Activations& compare_on);

// For each part the share, in steps of 2 %, so that together, by size, `share` goes and the divergences add up to as
// little as possible (an exact knapsack). Between the measured ratios divergence is taken as a power of the ratio. No
// part gives more than its largest ratio; when that is not enough, each gives what it can.
std::vector<double> least_divergence_shares(const PruneSensitivityTable& table, double share);

}  // namespace onnxpress
