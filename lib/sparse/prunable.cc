#include "sparse/prunable.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/text.h"
#include "num/select.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

// Which inputs of an operator are weights.
struct WeightSlots {
  std::string_view op;
  std::vector<std::size_t> slots;
};
const std::array<WeightSlots, 9> kWeightSlots = {{{"Conv", {1}},
                                                  {"ConvTranspose", {1}},
                                                  {"DeformConv", {1}},
                                                  {"Gemm", {0, 1}},
                                                  {"MatMul", {0, 1}},
                                                  {"LSTM", {1, 2}},
                                                  {"GRU", {1, 2}},
                                                  {"RNN", {1, 2}},
                                                  {"Gather", {0}}}};

std::size_t product(std::span<const std::int64_t> dims) { return element_count(dims).value_or(0); }

// Fills `out`, or says why this input is no weight to prune.
std::string locate(const Node& node, std::size_t slot, std::int64_t min_elements, PrunableWeight& out) {
  const std::string name(node.input(slot));
  const auto type = node.graph().constant_type(name);
  if (!type) return not_constant_reason(node, slot);
  out.name = name;
  out.scope = node.graph().scope_of(name);
  std::tie(out.dtype, out.dims) = *type;
  out.initializer = node.graph().constant_initializer(name);
  if (!out.initializer) out.constant = out.scope->producer(name);
  if (!has_magnitudes(out.dtype))
    return fmt::format("weight '{}' is {}, not a float of 16 bits or more", name, dtype_name(out.dtype));
  if (out.dims.size() < 2) return fmt::format("weight '{}' has fewer than two axes", name);
  if (out.size() < static_cast<std::uint64_t>(min_elements))
    return fmt::format("weight '{}' has {} elements, fewer than min_elements={}", name, out.size(), min_elements);
  out.rows = rows_of(node, slot, out.dims);
  return {};
}

std::string refusal_text(const std::vector<std::string>& refusals) {
  for (const std::string& refusal : refusals)
    if (refusal != kWeightNotConstant) return refusal;
  return std::string(kWeightNotConstant);
}

// A weight that some other node reads (as a bias, or a node that the user excluded) must stay as it is.
bool must_stay(const PrunableWeight& weight, PassContext& context) {
  const std::string reason = foreign_reader(*weight.scope, weight.name, weight.readers);
  if (reason.empty()) return false;
  for (const Use& reader : weight.readers) context.skipped(reader.node, reason);
  return true;
}

}  // namespace

RowView rows_of(const Node& node, std::size_t slot, const Dims& dims) {
  const std::size_t last = dims.size() - 1;
  const auto along = [&](std::size_t axis) {
    return RowView{product(std::span(dims).first(axis)), static_cast<std::size_t>(dims[axis]),
                   product(std::span(dims).subspan(axis + 1))};
  };
  if (node.is("Conv") || node.is("DeformConv"))
    return {static_cast<std::size_t>(dims[0]), product(std::span(dims).subspan(1)), 1};
  if (node.is("ConvTranspose")) {
    const std::int64_t groups = node.attr_int("group", 1);
    if (groups < 1 || dims[0] % groups != 0) return along(0);
    return {static_cast<std::size_t>(groups), static_cast<std::size_t>(dims[0] / groups),
            product(std::span(dims).subspan(1))};
  }
  if (node.is("Gemm")) {
    const bool transposed = node.attr_int(slot == 0 ? "transA" : "transB", 0) != 0;
    return along((slot == 0) == transposed ? last - 1 : last);
  }
  if (node.is("MatMul") && slot == 1) return along(last - 1);
  return along(last);
}

Result<Tensor> PrunableWeight::read() const {
  if (initializer) return initializer.read();
  OP_LET(std::optional<Tensor> value, constant.attr_tensor("value"));
  return std::move(*value);
}

void PrunableWeight::write(Tensor tensor, Rewriters& rewriters) const {
  Rewriter& rewriter = rewriters.of(*scope);
  if (initializer)
    rewriter.set_initializer(initializer, std::move(tensor));
  else
    rewriter.set_attribute(constant, "value", std::move(tensor));
}

void zero_where_zero(Tensor& weight, std::span<const double> scores) {
  const std::size_t width = bit_width(weight.dtype()) / 8;
  const auto bytes = weight.mutable_bytes();
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (scores[i] == 0) std::ranges::fill(bytes.subspan(i * width, width), std::byte{0});
}

std::vector<std::string> weight_ops() {
  std::vector<std::string> known;
  for (const WeightSlots& entry : kWeightSlots) known.emplace_back(entry.op);
  return known;
}

std::vector<std::string> common_weight_ops() {
  return {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"};
}

Status check_weight_ops(std::span<const std::string> ops, std::span<const std::string> known) {
  for (const std::string& op : ops)
    if (!std::ranges::contains(known, op))
      return fail(Code::usage, "ops: '{}' has no weights to prune{}", op, did_you_mean(op, known));
  return {};
}

std::vector<PrunableWeight> plan_weights(const Model& model, PassContext& context, std::span<const std::string> ops,
                                         std::int64_t min_elements) {
  std::vector<PrunableWeight> weights;
  std::unordered_map<const void*, std::size_t> seen;
  for (Graph* graph : model.graphs()) {
    for (const Node& node : graph->nodes()) {
      const auto entry = std::ranges::find_if(kWeightSlots, [&](const auto& e) { return node.is(e.op); });
      if (entry == kWeightSlots.end() || !std::ranges::contains(ops, entry->op)) continue;
      if (!context.selected(node)) continue;
      std::vector<std::string> refusals;
      bool any = false;
      for (const std::size_t slot : entry->slots) {
        PrunableWeight weight;
        const std::string refusal = locate(node, slot, min_elements, weight);
        if (!refusal.empty()) {
          refusals.push_back(refusal);
          continue;
        }
        any = true;
        const void* key = weight.initializer ? static_cast<const void*>(weight.initializer.proto())
                                             : static_cast<const void*>(weight.constant.proto());
        const auto [place, fresh] = seen.try_emplace(key, weights.size());
        if (fresh) weights.push_back(std::move(weight));
        weights[place->second].readers.push_back({node, slot, false});
      }
      // The data input of a MatMul is no constant either: that alone is no news.
      if (!any) context.skipped(node, refusal_text(refusals));
    }
  }
  std::erase_if(weights, [&](const PrunableWeight& weight) { return must_stay(weight, context); });
  return weights;
}

}  // namespace onnxpress
