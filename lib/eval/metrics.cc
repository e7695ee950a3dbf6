#include "eval/metrics.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

#include "base/text.h"

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

constexpr std::array<std::pair<Metric, std::string_view>, 6> kNames = {{{Metric::automatic, "auto"},
                                                                        {Metric::top1, "top1"},
                                                                        {Metric::top5, "top5"},
                                                                        {Metric::perplexity, "perplexity"},
                                                                        {Metric::agreement, "agreement"},
                                                                        {Metric::sqnr, "sqnr"}}};

double percent_of(std::uint64_t part, std::uint64_t all) {
  return all == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(all);
}

// log(sum(exp(x))) without overflow.
double log_sum_exp(std::span<const float> values) {
  double largest = -kInf;
  for (const float value : values) {
    if (std::isnan(value)) return kNan;
    largest = std::max(largest, static_cast<double>(value));
  }
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (const float value : values) sum += std::exp(static_cast<double>(value) - largest);
  return largest + std::log(sum);
}

}  // namespace

std::string_view metric_name(Metric metric) {
  for (const auto& [value, name] : kNames)
    if (value == metric) return name;
  return "";
}

std::string_view metric_unit(Metric metric) {
  switch (metric) {
    case Metric::top1:
    case Metric::top5:
    case Metric::agreement:
      return "%";
    case Metric::sqnr:
      return "dB";
    default:
      return "";
  }
}

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const auto& [value, name] : kNames) list.emplace_back(name);
    return list;
  }();
  return names;
}

Result<Metric> metric_from_name(std::string_view name) {
  for (const auto& [value, known] : kNames)
    if (known == name) return value;
  return fail(Code::usage, "unknown metric '{}'{}; known: {}", escape_control(name), did_you_mean(name, metric_names()),
              join(metric_names(), ", "));
}

std::optional<double> metric_drop(Metric metric, double before, double after) {
  switch (metric) {
    case Metric::top1:
    case Metric::top5:
    case Metric::agreement:
      return before - after;
    case Metric::perplexity:
      return 100.0 * (after - before) / before;
    default:
      return std::nullopt;
  }
}

bool in_top_k(std::span<const float> scores, std::size_t label, std::size_t k) {
  assert(label < scores.size());
  const float own = scores[label];
  if (std::isnan(own)) return false;
  std::size_t ahead = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) ahead += scores[i] > own || (scores[i] == own && i < label);
  return ahead < k;
}

Status TopK::add(std::span<const float> scores, std::size_t classes, std::span<const std::int64_t> labels) {
  assert(scores.size() >= labels.size() * classes);
  for (std::size_t row = 0; row < labels.size(); ++row) {
    const std::int64_t label = labels[row];
    if (label < 0 || std::cmp_greater_equal(label, classes))
      return fail(Code::bad_input, "label {} of the data is out of range: the model has {} classes", label, classes);
    const auto row_scores = scores.subspan(row * classes, classes);
    ++rows;
    top1 += in_top_k(row_scores, static_cast<std::size_t>(label), 1);
    top5 += in_top_k(row_scores, static_cast<std::size_t>(label), 5);
  }
  return {};
}

void TopK::merge(const TopK& other) {
  rows += other.rows;
  top1 += other.top1;
  top5 += other.top5;
}

double TopK::percent(Metric metric) const { return percent_of(metric == Metric::top5 ? top5 : top1, rows); }

void Agreement::add(std::span<const float> before, std::span<const float> after, std::size_t classes) {
  assert(before.size() == after.size() && classes > 0);
  for (std::size_t at = 0; at + classes <= before.size(); at += classes) {
    ++rows;
    equal += arg_max(before.subspan(at, classes)) == arg_max(after.subspan(at, classes));
  }
}

void Agreement::merge(const Agreement& other) {
  rows += other.rows;
  equal += other.equal;
}

double Agreement::percent() const { return percent_of(equal, rows); }

Status Perplexity::add(std::span<const float> logits, std::size_t sequences, std::size_t length, std::size_t vocabulary,
                       std::span<const std::int64_t> ids, std::span<const std::int64_t> mask) {
  assert(logits.size() >= sequences * length * vocabulary && ids.size() >= sequences * length);
  assert(mask.empty() || mask.size() >= sequences * length);
  for (std::size_t sequence = 0; sequence < sequences; ++sequence) {
    for (std::size_t t = 0; t + 1 < length; ++t) {
      const std::size_t at = sequence * length + t;
      if (!mask.empty() && mask[at + 1] == 0) continue;
      const std::int64_t target = ids[at + 1];
      if (target < 0 || std::cmp_greater_equal(target, vocabulary))
        return fail(Code::bad_input, "token {} of the data is out of range: the model has {} tokens", target,
                    vocabulary);
      const auto row = logits.subspan(at * vocabulary, vocabulary);
      nll += log_sum_exp(row) - static_cast<double>(row[static_cast<std::size_t>(target)]);
      ++tokens;
    }
  }
  return {};
}

void Perplexity::merge(const Perplexity& other) {
  nll += other.nll;
  tokens += other.tokens;
}

double Perplexity::value() const { return tokens == 0 ? kNan : std::exp(nll / static_cast<double>(tokens)); }

void Closeness::add(std::span<const float> reference, std::span<const float> other) {
  assert(reference.size() == other.size());
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double a = static_cast<double>(reference[i]);
    const double b = static_cast<double>(other[i]);
    ++elements;
    nan_reference += std::isnan(a);
    nan_other += std::isnan(b);
    const bool same = a == b || (std::isnan(a) && std::isnan(b));
    unequal += !same;
    if (!std::isfinite(a) || !std::isfinite(b)) {
      broken += !same;
      continue;
    }
    sum_ref2 += a * a;
    sum_other2 += b * b;
    sum_product += a * b;
    sum_error2 += (a - b) * (a - b);
    max_abs_error = std::max(max_abs_error, std::abs(a - b));
  }
}

Status Closeness::add(const TensorView& reference, const TensorView& other) {
  if (!std::ranges::equal(reference.dims, other.dims))
    return fail(Code::bad_input, "shapes differ: {} and {}", dims_text(reference.dims), dims_text(other.dims));
  const auto countable = [](DType dtype) { return is_float(dtype) || is_integer(dtype) || dtype == DType::boolean; };
  if (!countable(reference.dtype) || !countable(other.dtype))
    return fail(Code::unsupported, "{} values are not compared",
                dtype_name(countable(reference.dtype) ? other.dtype : reference.dtype));
  if (is_float(reference.dtype) || is_float(other.dtype)) {
    OP_LET(const auto a, to_floats(reference));
    OP_LET(const auto b, to_floats(other));
    add(a, b);
    return {};
  }
  // Floats hold no large integer exactly: equality is decided on the integers, the sums take what doubles give.
  OP_LET(const auto a, to_int64s(reference));
  OP_LET(const auto b, to_int64s(other));
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]);
    const auto y = static_cast<double>(b[i]);
    ++elements;
    unequal += a[i] != b[i];
    sum_ref2 += x * x;
    sum_other2 += y * y;
    sum_product += x * y;
    sum_error2 += (x - y) * (x - y);
    max_abs_error = std::max(max_abs_error, std::abs(x - y));
  }
  return {};
}

void Closeness::merge(const Closeness& other) {
  elements += other.elements;
  unequal += other.unequal;
  broken += other.broken;
  nan_reference += other.nan_reference;
  nan_other += other.nan_other;
  sum_ref2 += other.sum_ref2;
  sum_other2 += other.sum_other2;
  sum_product += other.sum_product;
  sum_error2 += other.sum_error2;
  max_abs_error = std::max(max_abs_error, other.max_abs_error);
}

double Closeness::sqnr_db() const {
  if (broken > 0) return kNan;
  if (unequal == 0 || sum_error2 == 0) return kInf;
  if (sum_ref2 == 0) return -kInf;
  return 10.0 * std::log10(sum_ref2 / sum_error2);
}

double Closeness::cosine() const {
  if (broken > 0) return kNan;
  if (unequal == 0) return 1;
  if (sum_ref2 == 0 || sum_other2 == 0) return 0;
  return std::clamp(sum_product / (std::sqrt(sum_ref2) * std::sqrt(sum_other2)), -1.0, 1.0);
}

}  // namespace onnxpress
