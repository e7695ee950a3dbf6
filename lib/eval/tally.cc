#include "eval/tally.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

namespace onnxpress {
namespace {

template <class T>
void merge_maps(std::map<std::string, T>& into, const std::map<std::string, T>& from) {
  for (const auto& [name, tally] : from) {
    if constexpr (requires { into[name].merge(tally); }) {
      into[name].merge(tally);
    } else {
      into[name] += tally;
    }
  }
}

// The integer input that holds the tokens of logits [N, S, V]: "input_ids", else the first of shape [N, S].
const Tensor* token_input(const Batch& batch, const Dims& logits) {
  const Tensor* found = nullptr;
  for (const NamedTensor& input : batch.inputs) {
    const Dims& dims = input.tensor.dims();
    if (!is_integer(input.tensor.dtype()) || dims.size() != 2 || dims[0] != logits[0] || dims[1] != logits[1]) continue;
    if (input.name == "input_ids") return &input.tensor;
    if (found == nullptr) found = &input.tensor;
  }
  return found;
}

Result<std::vector<std::int64_t>> mask_values(const Batch& batch, const Tensor& tokens) {
  for (const NamedTensor& input : batch.inputs)
    if (input.name == "attention_mask" && input.tensor.dims() == tokens.dims() &&
        (is_integer(input.tensor.dtype()) || input.tensor.dtype() == DType::boolean))
      return to_int64s(input.tensor.view());
  return std::vector<std::int64_t>();
}

Status add_perplexity(const Batch& batch, const Tensor& logits, const Tensor& tokens, Perplexity& perplexity) {
  OP_LET(const auto scores, to_floats(logits.view()));
  OP_LET(const auto ids, to_int64s(tokens.view()));
  OP_LET(const auto mask, mask_values(batch, tokens));
  const auto size = [&](std::size_t axis) { return static_cast<std::size_t>(logits.dims()[axis]); };
  return perplexity.add(scores, std::min(size(0), batch.samples), size(1), size(2), ids, mask);
}

Result<std::uint64_t> count_nans(const Tensor& tensor) {
  if (!is_float(tensor.dtype())) return 0;
  OP_LET(const auto values, to_floats(tensor.view()));
  return static_cast<std::uint64_t>(std::ranges::count_if(values, [](float value) { return std::isnan(value); }));
}

// True when the pair was compared, false when it cannot be.
Result<bool> add_closeness(const Tensor& reference, const Tensor& other, Closeness& closeness) {
  const auto numeric = [](DType dtype) { return is_float(dtype) || is_integer(dtype) || dtype == DType::boolean; };
  if (reference.dims() != other.dims() || !numeric(reference.dtype()) || !numeric(other.dtype())) return false;
  OP_TRY(closeness.add(reference.view(), other.view()));
  return true;
}

std::uint64_t class_rows(const ClassTally& tally) { return tally.top.rows; }
std::uint64_t token_count(const Perplexity& tally) { return tally.tokens; }
std::uint64_t agreement_rows(const Agreement& tally) { return tally.rows; }

// Where every metric of one model comes from.
void add_class_scores(Metric metric, const ModelTally& tally, std::vector<Score>& scores) {
  const auto* best = most(tally.classes, class_rows);
  if (best == nullptr) return;
  const auto& [output, classes] = *best;
  for (const Metric each : {Metric::top1, Metric::top5})
    if (each == Metric::top1 || metric == Metric::top5 || classes.classes > 5)
      scores.push_back({each, output, classes.top.percent(each), classes.top.rows});
}

template <class T>
void asked_first(Metric metric, std::vector<T>& scores) {
  std::ranges::stable_partition(scores, [&](const T& score) { return score.metric == metric; });
}

}  // namespace

Status ModelTally::add(const Batch& batch, std::span<const ValueInfo> infos, std::span<const Tensor> outputs,
                       bool with_perplexity) {
  assert(infos.size() == outputs.size());
  bool classes_found = batch.labels.empty();
  bool logits_found = !with_perplexity;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::string& name = infos[i].name;
    OP_LET(const std::uint64_t nan_count, count_nans(outputs[i]));
    if (nan_count > 0) nans[name] += nan_count;
    const auto classes_here = score_shape(outputs[i].view(), false);
    if (!classes_found && classes_here && classes_here->rows >= batch.labels.size()) {
      OP_LET(const auto values, to_floats(outputs[i].view()));
      ClassTally& tally = classes[name];
      tally.classes = classes_here->classes;
      OP_TRY(tally.top.add(values, classes_here->classes, batch.labels));
      classes_found = true;
    }
    if (!logits_found && score_shape(outputs[i].view(), true)) {
      if (const Tensor* tokens = token_input(batch, outputs[i].dims()); tokens != nullptr) {
        OP_TRY(add_perplexity(batch, outputs[i], *tokens, perplexity[name]));
        logits_found = true;
      }
    }
  }
  for (std::size_t k = 0; k < batch.expected.size(); ++k) {
    const NamedTensor& reference = batch.expected[k];
    const auto at = std::ranges::find(infos, reference.name, &ValueInfo::name);
    // Reference tensors without a name count by position.
    const auto i = at != infos.end() ? static_cast<std::size_t>(at - infos.begin()) : k;
    if (i >= outputs.size() || (at == infos.end() && !reference.name.empty())) continue;
    OP_LET(const bool compared, add_closeness(reference.tensor, outputs[i], expected[infos[i].name]));
    if (!compared) ++misfits[infos[i].name];
  }
  return {};
}

void ModelTally::merge(const ModelTally& other) {
  for (const auto& [name, tally] : other.classes) {
    classes[name].top.merge(tally.top);
    classes[name].classes = tally.classes;
  }
  merge_maps(perplexity, other.perplexity);
  merge_maps(expected, other.expected);
  merge_maps(nans, other.nans);
  merge_maps(misfits, other.misfits);
}

Status PairTally::add(const Batch& batch, const std::vector<std::string>& names, std::span<const Tensor* const> before,
                      std::span<const Tensor* const> after, bool any_position) {
  assert(names.size() == before.size() && names.size() == after.size());
  // [N, C] wins over [N, S, C]; within each, the first output.
  for (const bool per_position : {false, true}) {
    if (!agreement.empty()) break;
    for (std::size_t i = 0; i < names.size() && agreement.empty(); ++i) {
      const auto scores = score_shape(before[i]->view(), per_position);
      if (!scores || before[i]->dims() != after[i]->dims() || !is_float(after[i]->dtype())) continue;
      if (per_position && !any_position && token_input(batch, before[i]->dims()) == nullptr) continue;
      OP_LET(const auto a, to_floats(before[i]->view()));
      OP_LET(const auto b, to_floats(after[i]->view()));
      agreement[names[i]].add(a, b, scores->classes);
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    OP_LET(const bool compared, add_closeness(*before[i], *after[i], outputs[names[i]]));
    if (!compared) ++misfits[names[i]];
  }
  return {};
}

void PairTally::merge(const PairTally& other) {
  merge_maps(agreement, other.agreement);
  merge_maps(outputs, other.outputs);
  merge_maps(misfits, other.misfits);
}

Result<Metric> resolve_metric(Metric asked, bool has_labels, const ModelTally& model, const PairTally* pair) {
  const bool scored = !model.classes.empty();
  const auto refuse = [&](std::string_view why) {
    return fail(Code::usage, "--metric {}: {}", metric_name(asked), why);
  };
  switch (asked) {
    case Metric::automatic:
      if (scored) return Metric::top1;
      if (pair != nullptr) return pair->agreement.empty() ? Metric::sqnr : Metric::agreement;
      if (!model.expected.empty()) return Metric::sqnr;
      return fail(Code::usage,
                  "nothing to measure: {}; say --metric perplexity for a token model, or compare two models",
                  has_labels ? "the model has no output of shape [N, classes]"
                             : "the data has neither labels nor expected outputs");
    case Metric::top1:
    case Metric::top5:
      if (!has_labels) return refuse("the data has no labels");
      if (!scored) return refuse("the model has no float output of shape [N, classes]");
      return asked;
    case Metric::perplexity:
      if (model.perplexity.empty())
        return refuse("needs an integer input [N, S] and a float output [N, S, vocabulary]");
      return asked;
    case Metric::agreement:
      if (pair == nullptr) return refuse("needs two models");
      if (pair->agreement.empty())
        return refuse("the models have no float output of shape [N, classes] or [N, S, classes]");
      return asked;
    case Metric::sqnr:
      if (pair == nullptr && model.expected.empty()) return refuse("needs two models, or data with expected outputs");
      return asked;
  }
  return asked;
}

std::vector<Score> model_scores(Metric metric, const ModelTally& tally) {
  std::vector<Score> scores;
  add_class_scores(metric, tally, scores);
  if (const auto* best = most(tally.perplexity, token_count); best != nullptr)
    scores.push_back({Metric::perplexity, best->first, best->second.value(), best->second.tokens});
  asked_first(metric, scores);
  return scores;
}

std::vector<ScorePair> pair_scores(Metric metric, const ModelTally& before, const ModelTally& after,
                                   const PairTally& pair) {
  std::vector<ScorePair> scores;
  const auto others = model_scores(metric, after);
  for (const Score& score : model_scores(metric, before)) {
    const auto same = std::ranges::find_if(others, [&](const Score& other) { return other.metric == score.metric; });
    if (same == others.end()) continue;
    scores.push_back({score.metric, score.output, score.value, same->value,
                      metric_drop(score.metric, score.value, same->value), score.count});
  }
  if (const auto* best = most(pair.agreement, agreement_rows); best != nullptr) {
    const double percent = best->second.percent();
    scores.push_back({Metric::agreement, best->first, 100, percent, metric_drop(Metric::agreement, 100, percent),
                      best->second.rows});
  }
  asked_first(metric, scores);
  return scores;
}

}  // namespace onnxpress
