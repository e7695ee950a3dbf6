// Numbers that say how good a model is and how far two models are apart. Pure: no session, no files.
// All sums run in double and in the order of the calls, so a result depends on the data alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "num/scores.h"
#include "num/tensor.h"

namespace onnxpress {

// Unit and sense: top1, top5 and agreement in percent, higher is better; perplexity lower is better; sqnr in dB,
// higher is better. `automatic` is resolved by evaluate() and compare() and never comes back from them.
enum class Metric { automatic, top1, top5, perplexity, agreement, sqnr };
std::string_view metric_name(Metric metric);             // "auto", "top1", "top5", "perplexity", "agreement", "sqnr"
std::string_view metric_unit(Metric metric);             // "%", "" or "dB"
const std::vector<std::string>& metric_names();          // what the user may type
Result<Metric> metric_from_name(std::string_view name);  // error usage with "did you mean"

// How much worse `after` is; positive is worse, negative is better. Points for top1, top5 and agreement
// (91.75 -> 91.70 is 0.05); relative percent for perplexity (4.60 -> 4.65 is 1.09); empty for sqnr.
std::optional<double> metric_drop(Metric metric, double before, double after);

// Whether fewer than k classes rank before `label`. Ties go to the lower index, as in arg_max. False for a NaN score.
bool in_top_k(std::span<const float> scores, std::size_t label, std::size_t k);

// Top-k over labelled rows.
struct TopK {
  std::uint64_t rows = 0, top1 = 0, top5 = 0;
  // scores: labels.size() rows (or more; the rest is padding) of `classes`. Error bad_input: a label out of range.
  Status add(std::span<const float> scores, std::size_t classes, std::span<const std::int64_t> labels);
  void merge(const TopK& other);
  double percent(Metric metric) const;  // top1 or top5; 0 without rows
};

// Rows where both models choose the same class.
struct Agreement {
  std::uint64_t rows = 0, equal = 0;
  void add(std::span<const float> before, std::span<const float> after, std::size_t classes);
  void merge(const Agreement& other);
  double percent() const;
};

// exp of the mean negative log-likelihood of each next token. Position t of a sequence predicts token t + 1, so a
// sequence of S tokens has S - 1 predictions; those whose target is masked out are left out.
struct Perplexity {
  double nll = 0;  // sum of -log p, natural
  std::uint64_t tokens = 0;
  // logits [N, S, V]; tokens and mask (empty = all) [N, S]. Error bad_input: a token outside [0, V).
  Status add(std::span<const float> logits, std::size_t sequences, std::size_t length, std::size_t vocabulary,
             std::span<const std::int64_t> ids, std::span<const std::int64_t> mask);
  void merge(const Perplexity& other);
  double value() const;  // NaN without tokens
};

// Distance of `other` from `reference`, element by element, over any number of calls.
// Elements that are the same in both (NaN and NaN, inf and inf included) have no error. Where just one of the two is
// not finite, or both in different ways, the element is counted in `broken` and left out of the sums.
struct Closeness {
  std::uint64_t elements = 0, unequal = 0, broken = 0;
  std::uint64_t nan_reference = 0, nan_other = 0;
  double sum_ref2 = 0, sum_other2 = 0, sum_product = 0, sum_error2 = 0, max_abs_error = 0;

  void add(std::span<const float> reference, std::span<const float> other);
  // Any numeric type; both of the same dims. Integers are compared exactly. Error bad_input: shapes differ;
  // unsupported: strings, complex.
  Status add(const TensorView& reference, const TensorView& other);
  void merge(const Closeness& other);

  bool equal() const { return unequal == 0; }
  // 10 log10(sum ref^2 / sum (ref - x)^2): +inf when equal, -inf when the reference is all zero and x is not,
  // NaN when `broken`.
  double sqnr_db() const;
  // 1 when equal; 0 when one of the two is all zero; NaN when `broken`.
  double cosine() const;
};

}  // namespace onnxpress
