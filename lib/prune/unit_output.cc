#include "prune/unit_output.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <unordered_map>
#include <utility>

#include "num/linalg.h"

namespace onnxpress {
namespace {

struct Partial {
  std::uint64_t rows = 0;
  std::vector<double> sums;
  std::string trouble = {};
};

// A MatMul or Gemm that reads units of several channels: the rows of its weight that belong to them, and what it reads.
struct WideReader {
  const GroupMember* weight = nullptr;
  std::string input;
  bool transposed = false;  // the weight is [outputs, inputs]
  std::unique_ptr<UnitMoments> moments;
};

std::vector<WideReader> wide_readers(const UnitGroup& group, const Graph& graph,
                                     const std::unordered_map<std::string, Node>& nodes) {
  std::vector<WideReader> readers;
  for (const GroupMember& member : group.members) {
    if (!member.tensor.is_constant() || member.role != AxisRole::consumes) continue;
    const auto node = nodes.find(member.tensor.reader);
    const auto type = graph.constant_type(member.tensor.value);
    if (node == nodes.end() || !type || !reads_channels(node->second, member, type->second) || member.per_unit < 2)
      return {};
    readers.push_back({&member, std::string(node->second.input(0)), member.axis == 1,
                       std::make_unique<UnitMoments>(member.indices, member.per_unit)});
  }
  return readers;
}

// The rows of the weight that the units own, [units * per_unit, outputs].
Result<std::vector<double>> rows_of(const Graph& graph, const WideReader& reader, std::size_t& outputs) {
  OP_LET(const auto tensor, graph.constant(reader.weight->tensor.value));
  OP_LET(const std::vector<float> w, to_floats(tensor->view()));
  const auto rows = static_cast<std::size_t>(tensor->dims()[0]), columns = static_cast<std::size_t>(tensor->dims()[1]);
  outputs = reader.transposed ? rows : columns;
  std::vector<double> result;
  for (const std::uint32_t index : reader.weight->indices)
    for (std::size_t o = 0; o < outputs; ++o)
      result.push_back(static_cast<double>(reader.transposed ? w[o * columns + index] : w[index * columns + o]));
  return result;
}

// One score per unit, or none when the samples are of no use.
Result<std::vector<double>> score_wide(const Graph& graph, const std::vector<WideReader>& readers, std::size_t units) {
  std::vector<double> total(units);
  for (const WideReader& reader : readers) {
    if (!reader.moments->trouble().empty() || reader.moments->rows() == 0) return std::vector<double>();
    std::size_t outputs = 0;
    OP_LET(const std::vector<double> rows, rows_of(graph, reader, outputs));
    std::vector<double> scores = unit_outputs(*reader.moments, rows, outputs);
    scale_to_mean(scores);
    for (std::size_t u = 0; u < units; ++u) total[u] += scores[u];
  }
  scale_to_mean(total);
  return total;
}

}  // namespace

bool reads_channels(const Node& node, const GroupMember& weight, const Dims& dims) {
  if (weight.tensor.slot != 1 || dims.size() != 2) return false;
  if (node.is("MatMul")) return weight.axis == 0;
  return node.is("Gemm") && node.attr_int("transA", 0) == 0 &&
         weight.axis == (node.attr_int("transB", 0) != 0 ? 1U : 0U);
}

std::any UnitMoments::reduce(const TensorView& value) const {
  Partial partial{0, std::vector<double>(indices_.size() * per_unit_)};
  const auto floats = to_floats(value);
  if (!floats || value.dims.empty() ||
      std::ranges::any_of(indices_, [&](std::uint32_t i) { return std::cmp_greater_equal(i, value.dims.back()); })) {
    partial.trouble = "its input does not hold the channels of its weight";
    return partial;
  }
  const auto length = static_cast<std::size_t>(value.dims.back());
  std::vector<const float*> rows;
  for (const float* row = floats->data(); row < floats->data() + floats->size(); row += length)
    if (std::all_of(row, row + length, [](float v) { return std::isfinite(v); })) rows.push_back(row);
  partial.rows = rows.size();
  std::vector<double> channels(rows.size() * per_unit_);
  for (std::size_t u = 0; u < units(); ++u) {
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (std::size_t k = 0; k < per_unit_; ++k)
        channels[r * per_unit_ + k] = static_cast<double>(rows[r][indices_[u * per_unit_ + k]]);
    add_gram(rows.size(), per_unit_, per_unit_, channels,
             std::span(partial.sums).subspan(u * per_unit_ * per_unit_, per_unit_ * per_unit_));
  }
  return partial;
}

void UnitMoments::merge(std::any partial) {
  const auto& one = *std::any_cast<Partial>(&partial);
  if (!one.trouble.empty()) trouble_ = one.trouble;
  rows_ += one.rows;
  sums_.resize(one.sums.size());
  for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += one.sums[i];
}

std::span<const double> UnitMoments::of(std::size_t unit) const {
  return std::span(sums_).subspan(unit * per_unit_ * per_unit_, per_unit_ * per_unit_);
}

std::vector<double> unit_outputs(const UnitMoments& moments, std::span<const double> weight, std::size_t outputs) {
  std::vector<double> result;
  const std::size_t d = weight.size() / outputs / moments.units();
  std::vector<double> products(d * d);
  for (std::size_t u = 0; u < moments.units(); ++u) {
    const auto rows = weight.subspan(u * d * outputs, d * outputs);
    gemm({.m = d, .n = d, .k = outputs, .transpose_b = true}, 1, rows, rows, 0, products);
    const auto gram = moments.of(u);
    double trace = 0;
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = i; j < d; ++j) trace += (i == j ? 1 : 2) * gram[i * d + j] * products[i * d + j];
    result.push_back(std::sqrt(std::max(0.0, trace / static_cast<double>(moments.rows()))));
  }
  return result;
}

Result<std::vector<UnitScores>> wide_activation_scores(const ScoreRequest& request, PassContext& context,
                                                       std::vector<UnitScores> scores) {
  const auto nodes = nodes_by_key(request.graph);
  const GroupList groups = request.list();
  std::vector<std::vector<WideReader>> readers;
  std::vector<Tap> taps;
  for (const UnitGroup* group : groups) {
    readers.push_back(wide_readers(*group, request.graph, nodes));
    for (const WideReader& reader : readers.back())
      taps.push_back(
          {reader.input, reader.moments.get(), request.graph.kind() == Graph::Kind::main ? nullptr : &request.graph});
  }
  if (taps.empty()) return scores;
  OP_TRY(context.activations->collect(request.model, taps));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (readers[g].empty()) continue;
    OP_LET(std::vector<double> wide, score_wide(request.graph, readers[g], groups[g]->units));
    if (!wide.empty()) scores[g] = {std::move(wide), {}};
  }
  return scores;
}

}  // namespace onnxpress
