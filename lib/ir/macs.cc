#include "ir/macs.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>

#include "base/checked.h"

namespace onnxpress {
namespace {

using Macs = std::optional<std::uint64_t>;

Macs product(std::initializer_list<Macs> factors) {
  Macs result = 1;
  for (const Macs& factor : factors) {
    if (!result || !factor) return std::nullopt;
    result = checked_mul(*result, *factor);
  }
  return result;
}

Macs count_of(const std::optional<Dims>& dims) { return dims ? element_count(*dims) : std::nullopt; }

Macs at(const std::optional<Dims>& dims, std::ptrdiff_t axis) {  // negative counts from the end
  if (!dims) return std::nullopt;
  const auto rank = static_cast<std::ptrdiff_t>(dims->size());
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return std::nullopt;
  return static_cast<std::uint64_t>((*dims)[static_cast<std::size_t>(axis)]);
}

// Shapes around one node, free dimensions as 1.
class Shapes {
 public:
  Shapes(const Node& node, std::vector<std::string>* free_dims, const ResizeDims& resize)
      : node_(node), free_dims_(free_dims), resize_(resize) {
    const Graph& main = node.graph().model().main();
    for (const std::string& input : main.inputs())
      for (const Dim& dim : main.type(input).shape.value_or(std::vector<Dim>()))
        if (!dim.symbol.empty()) symbols_.push_back(dim.symbol);
  }

  std::optional<Dims> input(std::size_t i) const { return resized(of(node_.input(i)), false, i); }
  std::optional<Dims> output(std::size_t i) const { return resized(of(node_.output(i)), true, i); }

 private:
  std::optional<Dims> resized(std::optional<Dims> dims, bool output, std::size_t slot) const {
    if (!dims || !resize_) return dims;
    return resize_(node_, output, slot, std::move(*dims));
  }

  std::optional<Dims> of(std::string_view value) const {
    if (value.empty()) return std::nullopt;
    const Graph* scope = node_.graph().scope_of(value);
    if (scope == nullptr) return std::nullopt;
    if (const auto constant = scope->constant_type(value)) return constant->second;
    const ValueType type = scope->type(value);
    if (!type.shape) return std::nullopt;
    Dims dims;
    std::vector<std::string> taken;
    for (std::size_t axis = 0; axis < type.shape->size(); ++axis) {
      const Dim& dim = (*type.shape)[axis];
      const bool known_symbol = std::ranges::find(symbols_, dim.symbol) != symbols_.end();
      if (!dim.value && !known_symbol && axis != 0) return std::nullopt;
      if (!dim.value) taken.push_back(known_symbol ? dim.symbol : "first dimension");
      dims.push_back(dim.value.value_or(1));
    }
    if (free_dims_ != nullptr)
      for (std::string& name : taken)
        if (std::ranges::find(*free_dims_, name) == free_dims_->end()) free_dims_->push_back(std::move(name));
    return dims;
  }

  const Node& node_;
  std::vector<std::string>* free_dims_;
  const ResizeDims& resize_;
  std::vector<std::string> symbols_;
};

// Every output element is a sum over one filter: C / group x kernel.
Macs conv(const Shapes& shapes, std::size_t weight) {
  const auto filter = shapes.input(weight);
  const Macs filters = at(filter, 0);
  const Macs all = count_of(filter);
  if (!filters || !all || *filters == 0) return std::nullopt;
  return product({count_of(shapes.output(0)), *all / *filters});
}

// Every input element is multiplied with one filter: M / group x kernel.
Macs conv_transpose(const Shapes& shapes) {
  const auto filter = shapes.input(1);
  const Macs channels = at(filter, 0);
  const Macs all = count_of(filter);
  if (!channels || !all || *channels == 0) return std::nullopt;
  return product({count_of(shapes.input(0)), *all / *channels});
}

// M x K x N; the second operand has K x N elements in either layout.
Macs gemm(const Node& node, const Shapes& shapes, std::size_t weight) {
  Macs rows = at(shapes.input(0), node.attr_int("transA", 0) != 0 ? 1 : 0);
  if (!rows) rows = at(shapes.output(0), 0);
  return product({rows, count_of(shapes.input(weight))});
}

// rows x K x N. The output's shape is not needed when the second operand is a plain matrix.
Macs matmul(const Node& node, const Shapes& shapes, std::size_t second) {
  const auto a = shapes.input(0);
  const auto b = shapes.input(second);
  const bool transposed_a = node.attr_int("transA", 0) != 0;
  const bool transposed_b = node.attr_int("transB", 0) != 0;
  if (a && b && b->size() == 2) return product({count_of(a), at(b, transposed_b ? 0 : 1)});
  if (a && b && b->size() == 1) return count_of(a);
  Macs depth = at(a, transposed_a && a && a->size() > 1 ? -2 : -1);
  if (!depth) depth = at(b, transposed_b ? -1 : -2);
  return product({count_of(shapes.output(0)), depth});
}

// Weights packed in blocks: N and K are attributes.
Macs packed_matmul(const Node& node, const Shapes& shapes) {
  const std::int64_t n = node.attr_int("N", -1);
  if (n < 0) return std::nullopt;
  return product({count_of(shapes.input(0)), static_cast<std::uint64_t>(n)});
}

// Each step multiplies with all of W [dirs, gates x H, I] and R [dirs, gates x H, H]; X is [steps, batch, I].
Macs recurrent(const Shapes& shapes) {
  const auto x = shapes.input(0);
  const Macs w = count_of(shapes.input(1));
  const Macs r = count_of(shapes.input(2));
  if (!w || !r) return std::nullopt;
  return product({at(x, 0), at(x, 1), checked_add(*w, *r)});
}

// com.microsoft Attention and QAttention: input [B, S, I], weights [I, 3H]; then two products of S x S x H.
Macs attention(const Shapes& shapes) {
  const auto x = shapes.input(0);
  const Macs width = at(shapes.input(1), 1);
  const Macs projection = product({count_of(x), width});
  if (!projection) return std::nullopt;
  const Macs scores = product({at(x, 0), at(x, 1), at(x, 1), *width / 3, 2});
  return scores ? checked_add(*projection, *scores) : std::nullopt;
}

// Every combination of the two operands' labels is one product. No ellipsis.
Macs einsum(const Node& node, const Shapes& shapes) {
  std::string equation = node.attr_string("equation", "");
  std::erase(equation, ' ');
  const std::string operands = equation.substr(0, equation.find("->"));
  const std::size_t comma = operands.find(',');
  if (node.input_count() != 2 || comma == std::string::npos || operands.contains('.')) return std::nullopt;
  const std::array labels = {operands.substr(0, comma), operands.substr(comma + 1)};
  std::map<char, std::uint64_t> sizes;
  for (std::size_t k = 0; k < 2; ++k) {
    const auto dims = shapes.input(k);
    if (!dims || dims->size() != labels[k].size()) return std::nullopt;
    for (std::size_t i = 0; i < labels[k].size(); ++i) {
      std::uint64_t& size = sizes[labels[k][i]];
      size = std::max(size, static_cast<std::uint64_t>((*dims)[i]));  // a 1 is broadcast
    }
  }
  Macs result = 1;
  for (const auto& [label, size] : sizes) result = product({result, size});
  return result;
}

enum class Kind { conv, conv_transpose, gemm, matmul, packed_matmul, recurrent, attention, einsum, unknown };
struct Counted {
  std::string_view op;
  bool contributed;  // com.microsoft
  Kind kind;
  std::size_t weight;  // slot of the second operand
};
constexpr std::array kCounted = {
    Counted{"Conv", false, Kind::conv, 1},
    Counted{"ConvInteger", false, Kind::conv, 1},
    Counted{"QLinearConv", false, Kind::conv, 3},
    Counted{"ConvTranspose", false, Kind::conv_transpose, 1},
    Counted{"Gemm", false, Kind::gemm, 1},
    Counted{"MatMul", false, Kind::matmul, 1},
    Counted{"MatMulInteger", false, Kind::matmul, 1},
    Counted{"QLinearMatMul", false, Kind::matmul, 3},
    Counted{"Einsum", false, Kind::einsum, 1},
    Counted{"LSTM", false, Kind::recurrent, 1},
    Counted{"GRU", false, Kind::recurrent, 1},
    Counted{"RNN", false, Kind::recurrent, 1},
    Counted{"DeformConv", false, Kind::unknown, 1},
    Counted{"Attention", false, Kind::unknown, 1},
    Counted{"FusedConv", true, Kind::conv, 1},
    Counted{"NhwcConv", true, Kind::conv, 1},
    Counted{"NhwcFusedConv", true, Kind::conv, 1},
    Counted{"QLinearConv", true, Kind::conv, 3},
    Counted{"FusedGemm", true, Kind::gemm, 1},
    Counted{"QGemm", true, Kind::gemm, 3},
    Counted{"FusedMatMul", true, Kind::matmul, 1},
    Counted{"MatMulIntegerToFloat", true, Kind::matmul, 1},
    Counted{"DynamicQuantizeMatMul", true, Kind::matmul, 1},
    Counted{"MatMulNBits", true, Kind::packed_matmul, 1},
    Counted{"MatMulBnb4", true, Kind::packed_matmul, 1},
    Counted{"DynamicQuantizeLSTM", true, Kind::recurrent, 1},
    Counted{"Attention", true, Kind::attention, 1},
    Counted{"QAttention", true, Kind::attention, 1},
    Counted{"MultiHeadAttention", true, Kind::unknown, 1},
    Counted{"GroupQueryAttention", true, Kind::unknown, 1},
};

}  // namespace

std::optional<std::optional<std::uint64_t>> node_macs(const Node& node, std::vector<std::string>* free_dims,
                                                      const ResizeDims& resize) {
  const bool contributed = node.domain() == "com.microsoft";
  if (!contributed && !node.domain().empty()) return std::nullopt;
  const auto entry = std::ranges::find_if(
      kCounted, [&](const Counted& each) { return each.contributed == contributed && each.op == node.op(); });
  if (entry == kCounted.end()) return std::nullopt;
  // Free dimensions are reported only for nodes that could be counted.
  std::vector<std::string> taken;
  const Shapes shapes(node, &taken, resize);
  Macs macs;
  switch (entry->kind) {
    case Kind::conv:
      macs = conv(shapes, entry->weight);
      break;
    case Kind::conv_transpose:
      macs = conv_transpose(shapes);
      break;
    case Kind::gemm:
      macs = gemm(node, shapes, entry->weight);
      break;
    case Kind::matmul:
      macs = matmul(node, shapes, entry->weight);
      break;
    case Kind::packed_matmul:
      macs = packed_matmul(node, shapes);
      break;
    case Kind::recurrent:
      macs = recurrent(shapes);
      break;
    case Kind::attention:
      macs = attention(shapes);
      break;
    case Kind::einsum:
      macs = einsum(node, shapes);
      break;
    case Kind::unknown:
      break;
  }
  if (macs && free_dims != nullptr)
    for (std::string& name : taken)
      if (std::ranges::find(*free_dims, name) == free_dims->end()) free_dims->push_back(std::move(name));
  return std::optional<Macs>(std::in_place, macs);
}

}  // namespace onnxpress
