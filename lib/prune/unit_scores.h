// How much each unit of a dependency group matters.
//
//   group:  units 0..n-1 with slices in members          score(u) = mean over members of  m(slice of u) / mean_v
//   m(slice
//           W1[u,:]  (produces)   W2[:,u]  (consumes)               of v),   m = |.|_1, |.|_2, ...
//
// Each member counts relative to its own mean, so that large tensors do not drown small ones. A unit is seen once per
// member however many indices of it it owns. Sources: Li et al., "Pruning Filters for Efficient ConvNets" (arXiv
// 1608.08710, l1); Fang et al., "DepGraph" (arXiv 2301.12900, group l2); Liu et al., "Network Slimming" (arXiv
// 1708.06519, bn_gamma); He et al., "Filter Pruning via Geometric Median" (arXiv 1811.00250, fpgm).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "depend/dependency.h"
#include "ir/model.h"
#include "pass/pass.h"
#include "prune/structured.h"

namespace onnxpress {

struct UnitScores {
  std::vector<double> of_unit = {};  // not negative; the higher the more the unit matters; mean 1 unless all are 0
  std::string note = {};             // why another criterion stands in; "" when it is the one asked for
};

using GroupList = std::vector<const UnitGroup*>;
using ConstantReader = std::function<Result<Tensor>(const TensorRef& constant)>;

struct WeightScoring {
  StructuredOptions::Criterion criterion = StructuredOptions::Criterion::group_l2;  // random, l1, l2, group_l2,
                                                                                    // bn_gamma or fpgm
  std::uint64_t seed = 0;
  unsigned jobs = 0;
  std::uint64_t memory_limit = 0;
  std::uint64_t largest = 0;  // bytes of the largest constant as floats
};
// From the constants alone, in the order of `groups`. Every constant is read once, one per thread. Errors: those of
// `read`, bad_input for a constant without numbers.
Result<std::vector<UnitScores>> weight_scores(const GroupList& groups, const ConstantReader& read,
                                              const WeightScoring& scoring);

struct ScoreRequest {
  const Model& original;  // before the first of several steps
  const Model& model;
  const Graph& graph;  // the scope of the groups, in `model`
  const DependencyGraph& dependencies;
  std::vector<std::size_t> groups;  // of dependencies.groups()
  StructuredOptions::Criterion criterion = StructuredOptions::Criterion::group_l2;
  std::size_t positions = 64;  // of a sample, for second moments
  double most = 1;             // share of a group that may go: obs looks no further
  std::size_t longest = 0;     // inputs of a reader (channels times kernel) that obs looks at; 0 = any number

  GroupList list() const;
};
// By any criterion. Errors: those of the samples and weights; usage when the criterion needs samples and there are
// none.
Result<std::vector<UnitScores>> score_units(const ScoreRequest& request, PassContext& context);

// activation: root mean square of what a unit hands on, times the norm of the slice that reads it, over all readers.
// Groups without a reader whose input can be observed keep `otherwise`, with a note.
Result<std::vector<UnitScores>> activation_scores(const ScoreRequest& request, PassContext& context,
                                                  std::vector<UnitScores> otherwise);
// obs: see unit_obs.h. Groups whose readers are no Conv, Gemm or MatMul of the main graph keep `otherwise`.
Result<std::vector<UnitScores>> reader_obs_scores(const ScoreRequest& request, PassContext& context,
                                                  std::vector<UnitScores> otherwise);

// Divides by the mean; all zeros stay.
void scale_to_mean(std::vector<double>& values);
// The nodes of a scope by reader_key().
std::unordered_map<std::string, Node> nodes_by_key(const Graph& graph);

}  // namespace onnxpress
