// The sums behind evaluate() and compare(): what one batch adds, for one model and for a pair. Pure.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/source.h"
#include "eval/evaluate.h"
#include "eval/metrics.h"

namespace onnxpress {

// Tallies are kept by output name: which output carries the classes is decided on each batch from real shapes.
struct ClassTally {
  TopK top;
  std::size_t classes = 0;
};

// One model. add() is called once, on one batch; merge() sums tallies in batch order.
struct ModelTally {
  std::map<std::string, ClassTally> classes;
  std::map<std::string, Perplexity> perplexity;
  std::map<std::string, Closeness> expected;
  std::map<std::string, std::uint64_t> nans;   // NaN elements of each float output
  std::map<std::string, std::size_t> misfits;  // outputs whose expected value has another shape or type: batches

  // `outputs` are the results of one run of `batch`, named by `infos`.
  Status add(const Batch& batch, std::span<const ValueInfo> infos, std::span<const Tensor> outputs,
             bool with_perplexity);
  void merge(const ModelTally& other);
};

// Two models over the same batches; add() and merge() as above.
struct PairTally {
  std::map<std::string, Agreement> agreement;
  std::map<std::string, Closeness> outputs;
  std::map<std::string, std::size_t> misfits;  // outputs with different shapes, or not numeric: batches

  // Outputs of both models with the same names. Agreement is taken on the first output [N, C]; else on the first
  // [N, S, C] when an integer input [N, S] says that positions are tokens, or on any when `any_position`.
  Status add(const Batch& batch, const std::vector<std::string>& names, std::span<const Tensor* const> before,
             std::span<const Tensor* const> after, bool any_position);
  void merge(const PairTally& other);
};

// The entry with the largest count (the first by name at ties): outputs[0] in practice.
template <class T, class Count>
const std::pair<const std::string, T>* most(const std::map<std::string, T>& tallies, Count count) {
  const std::pair<const std::string, T>* best = nullptr;
  for (const auto& entry : tallies)
    if (best == nullptr || count(entry.second) > count(best->second)) best = &entry;
  return best;
}

// Which metric `automatic` means for what has been counted; any other is checked. `pair` is null for one model.
// Errors: usage, as documented at evaluate().
Result<Metric> resolve_metric(Metric asked, bool has_labels, const ModelTally& model, const PairTally* pair);

// Scores of one model, the resolved metric first.
std::vector<Score> model_scores(Metric metric, const ModelTally& tally);
std::vector<ScorePair> pair_scores(Metric metric, const ModelTally& before, const ModelTally& after,
                                   const PairTally& pair);

}  // namespace onnxpress
