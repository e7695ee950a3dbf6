#include "eval/layers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "base/interrupt.h"
#include "base/progress.h"
#include "engine/session.h"

namespace onnxpress {
namespace {

// Their output holds the numbers of their input once more.
constexpr std::array kViews = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"};

bool is_op(const Node& node, std::string_view op) {
  return node.op() == op && (node.domain().empty() || node.domain() == "com.microsoft");
}

// X -> QuantizeLinear -> DequantizeLinear: the dequantized value; "" when X is not quantized.
std::string dequantized(const Graph& graph, std::string_view value) {
  for (const Use& use : graph.uses(value)) {
    if (use.captured || !use.node || use.slot != 0 || !is_op(use.node, "QuantizeLinear")) continue;
    for (const Use& next : graph.uses(use.node.output(0)))
      if (!next.captured && next.node && next.slot == 0 && is_op(next.node, "DequantizeLinear"))
        return std::string(next.node.output(0));
  }
  return "";
}

std::uint64_t estimated_bytes(const Graph& graph, std::string_view value) {
  const ValueType type = graph.type(value);
  Dims dims;
  for (const Dim& dim : type.shape.value_or(std::vector<Dim>())) dims.push_back(dim.value.value_or(1));
  return element_count(dims).value_or(1) * sizeof(float);
}

// Consecutive pairs whose values together stay below the limit (one pair at least).
std::vector<std::span<const ValuePair>> group_by_memory(const Graph& graph, std::span<const ValuePair> pairs,
                                                        std::uint64_t limit) {
  std::vector<std::span<const ValuePair>> groups;
  std::size_t begin = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::uint64_t own = estimated_bytes(graph, pairs[i].before);
    if (i > begin && bytes + own > limit) {
      groups.push_back(pairs.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += own;
  }
  if (begin < pairs.size()) groups.push_back(pairs.subspan(begin));
  return groups;
}

// A session with optimizations off that gives `values`, and where each of them is in its results.
struct TappedSession {
  std::unique_ptr<Session> session;
  std::unordered_map<std::string, std::size_t> at;

  static Result<TappedSession> open(const Model& model, const std::vector<std::string>& values, unsigned threads) {
    SessionOptions options{.threads = threads, .optimize = false};
    std::unordered_set<std::string> seen;
    for (const std::string& value : values)
      if (!model.main().is_output(value) && seen.insert(value).second) options.taps.push_back(value);
    TappedSession tapped;
    OP_LET(tapped.session, Session::open(model, options));
    const auto& outputs = tapped.session->outputs();
    for (std::size_t i = 0; i < outputs.size(); ++i) tapped.at.emplace(outputs[i].name, i);
    return tapped;
  }
};

Status compare_group(const Model& before, const Model& after, SampleSource& source, const LayerOptions& options,
                     std::span<const ValuePair> pairs, Progress& progress, std::vector<LayerError>& errors) {
  std::vector<std::string> first, second;
  for (const ValuePair& pair : pairs) {
    first.push_back(pair.before);
    second.push_back(pair.after);
  }
  OP_LET(const TappedSession a, TappedSession::open(before, first, options.threads));
  OP_LET(const TappedSession b, TappedSession::open(after, second, options.threads));
  OP_TRY(source.rewind());
  std::vector<Closeness> sums(pairs.size());
  std::vector<bool> fits(pairs.size(), true);
  for (std::size_t samples = 0; samples < options.samples;) {
    OP_TRY(check_interrupt());
    OP_LET(const auto batch, source.next());
    if (!batch) break;
    samples += std::max<std::size_t>(1, batch->samples);
    OP_LET(const auto reference, a.session->run(batch->inputs));
    OP_LET(const auto other, b.session->run(batch->inputs));
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const Tensor& x = reference[a.at.at(pairs[i].before)];
      const Tensor& y = other[b.at.at(pairs[i].after)];
      fits[i] = fits[i] && x.dims() == y.dims() && is_float(x.dtype()) && is_float(y.dtype());
      if (fits[i]) OP_TRY(sums[i].add(x.view(), y.view()));
    }
    progress.tick(std::max<std::size_t>(1, batch->samples));
  }
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (fits[i] && sums[i].elements > 0)
      errors.push_back({pairs[i].before, pairs[i].after, pairs[i].node, pairs[i].op, sums[i]});
  return {};
}

}  // namespace

std::vector<ValuePair> match_values(const Model& before, const Model& after) {
  const Graph& from = before.main();
  const Graph& to = after.main();
  std::vector<ValuePair> pairs;
  for (const Node& node : from.nodes()) {
    if (std::ranges::any_of(kViews, [&](const char* op) { return node.is(op); })) continue;
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      const std::string value(node.output(i));
      if (value.empty() || from.is_constant(value) || !is_float(from.type(value).dtype)) continue;
      if (!to.producer(value) || to.is_constant(value)) continue;
      std::string tap = dequantized(to, value);
      if (tap.empty()) {
        if (!is_float(to.type(value).dtype)) continue;
        tap = value;
      }
      pairs.push_back({value, std::move(tap), node.label(), std::string(node.op())});
    }
  }
  return pairs;
}

Result<std::vector<LayerError>> compare_layers(const Model& before, const Model& after, SampleSource& source,
                                               const LayerOptions& options) {
  const std::vector<ValuePair> pairs = match_values(before, after);
  std::vector<LayerError> errors;
  const auto groups = group_by_memory(before.main(), pairs, options.memory_limit);
  Progress progress("layers", groups.size() * std::min(options.samples, source.size()));
  for (const auto& group : groups) OP_TRY(compare_group(before, after, source, options, group, progress, errors));
  const auto key = [](const LayerError& error) {
    const double sqnr = error.closeness.sqnr_db();
    return std::pair(!std::isnan(sqnr), std::isnan(sqnr) ? 0.0 : sqnr);
  };
  std::ranges::stable_sort(errors, {}, key);
  return errors;
}

}  // namespace onnxpress
