// How far the outputs of a network move when one unit alone falls silent: the criterion that asks the network itself.
//
//   x ─► MatMul(W_O) ─► y      =>      x ─► MatMul(m * W_O) ─► y        m = 0 where the unit owns an index, else 1
//
//   loss(u) = KL( outputs of the original || outputs without u )        mean over the calibration samples
//
// Nothing is cut: the constants that make or read the unit are multiplied with a mask, which the runtime folds at load.
// It works for units of any kind, and costs one pass over the samples for each.
// Source: leave-one-out ablation of heads, Michel et al., "Are Sixteen Heads Really Better than One?" (arXiv
// 1905.10650), section 3.2, with the divergence from the original in place of a labelled loss.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "depend/dependency.h"
#include "pass/pass.h"
#include "prune/unit_scores.h"

namespace onnxpress {

inline constexpr std::size_t kMostUnitLosses = 2000;  // passes over the samples that a user is made to wait for

// Of each unit of dependencies.groups()[group]. `model` is what it is taken from; that may have lost others already.
// `original` is what its outputs are compared with; it may be `model` itself. An output that is no longer finite counts
// as infinitely far. Errors: unsupported when no weight of a unit is a float, and those of output_divergence().
Result<std::vector<double>> unit_losses(const Model& original, const Model& model, const Graph& graph,
                                        const DependencyGraph& dependencies, std::size_t group,
                                        Activations& activations);

// criterion=loss: of all groups of the request with more than one unit, in nats, so that groups can be compared. Groups
// whose units cannot be silenced keep `otherwise`, with a note. Journals the number of passes. Errors: usage for more
// than kMostUnitLosses units, and those of output_divergence().
Result<std::vector<UnitScores>> loss_scores(const ScoreRequest& request, PassContext& context,
                                            std::vector<UnitScores> otherwise);

// `model` with these units of one group silent: a copy with masks. What unit_losses() runs.
Result<Model> without_units(const Model& model, const Graph& graph, const DependencyGraph& dependencies,
                            std::size_t group, std::span<const std::uint32_t> units);

}  // namespace onnxpress
