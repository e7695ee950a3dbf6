// The constants of a model whose single elements may become zero: which inputs of which operators are weights, and who
// else reads them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/rewriters.h"
#include "pass/pass.h"

namespace onnxpress {

// Elements of one row, the axis that is summed over, lie `inner` apart: [outer, length, inner].
struct RowView {
  std::size_t outer = 1, length = 1, inner = 1;
  bool operator==(const RowView&) const = default;
  // fn(row-major index of [outer, inner, length], index of the element)
  void each(const auto& fn) const {
    std::size_t at = 0;
    for (std::size_t o = 0; o < outer; ++o)
      for (std::size_t i = 0; i < inner; ++i)
        for (std::size_t k = 0; k < length; ++k) fn(at++, (o * length + k) * inner + i);
  }
};

// Of a weight that `node` reads at `slot`, by what the operator sums over; `dims` has two axes or more.
RowView rows_of(const Node& node, std::size_t slot, const Dims& dims);

// A weight: an initializer, or the tensor of a Constant node.
struct PrunableWeight {
  std::string name;
  Graph* scope = nullptr;
  Initializer initializer;
  Node constant;
  Dims dims;
  DType dtype = DType::undefined;
  RowView rows;
  std::vector<Use> readers;

  std::uint64_t size() const { return element_count(dims).value_or(0); }
  Result<Tensor> read() const;
  void write(Tensor tensor, Rewriters& rewriters) const;
};

// Every weight of selected nodes with one of these ops once, in the order of its first reader, in all scopes. Nodes
// without one, or whose weight something else needs as it is, are journaled with the reason. Never: biases, norm
// parameters, tensors of one axis or fewer than `min_elements` elements, integers, graph inputs and outputs.
std::vector<PrunableWeight> plan_weights(const Model& model, PassContext& context, std::span<const std::string> ops,
                                         std::int64_t min_elements);

// Fails (usage) when `ops` names an operator without weights; `known` are those there are.
Status check_weight_ops(std::span<const std::string> ops, std::span<const std::string> known);
std::vector<std::string> weight_ops();
// Those that are pruned when nobody says which.
std::vector<std::string> common_weight_ops();

// Elements become +0 where `scores` (one each) is 0.
void zero_where_zero(Tensor& weight, std::span<const double> scores);

}  // namespace onnxpress
