#include "pass/stored_sparse.h"

#include <algorithm>
#include <optional>

#include "num/sparse_codec.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kLiteralBytes = 4096;  // shapes and axes are smaller

// Follows one weight back from its ScatterElements.
class Match {
 public:
  explicit Match(const Graph& graph) : graph_(graph) {}

  std::optional<StoredSparse> run(const Node& scatter) {
    if (scatter.attr_int("axis", 0) != 0 || scatter.attr_string("reduction", "none") != "none") return std::nullopt;
    out_.graph = &graph_;
    out_.nodes.push_back(scatter);
    if (!fill(scatter.input(0)) || !positions(scatter.input(1)) || !elements(scatter.input(2))) return std::nullopt;
    out_.value = scatter.output(0);
    shape(scatter);
    const auto size = element_count(out_.dims);
    if (!size || *size != static_cast<std::uint64_t>(count_)) return std::nullopt;
    return std::move(out_);
  }

 private:
  // The producer of `value` in this scope, when it is `op`; part of the decoder from then on.
  Node made_by(std::string_view op, std::string_view value) {
    const Node node = graph_.producer(value);
    if (!node || !node.is(op)) return {};
    out_.nodes.push_back(node);
    return node;
  }

  std::optional<std::pair<DType, Dims>> constant(std::string_view value) {
    const auto type = graph_.constant_type(value);
    if (type) out_.constants.emplace_back(value);
    return type;
  }

  std::optional<Dims> literal(std::string_view value) {
    const auto type = constant(value);
    if (!type || type->first != DType::i64 || byte_count(type->first, type->second).value_or(~0ULL) > kLiteralBytes)
      return std::nullopt;
    const auto tensor = graph_.constant(value);
    if (!tensor || !*tensor) return std::nullopt;
    const auto numbers = (*tensor)->as<std::int64_t>();
    return Dims(numbers.begin(), numbers.end());
  }

  bool fill(std::string_view value) {
    std::optional<DType> wanted;
    if (const Node cast = made_by("Cast", value)) {
      wanted = static_cast<DType>(cast.attr_int("to", 0));
      value = cast.input(0);
    }
    const Node node = made_by("ConstantOfShape", value);
    const auto count = node ? literal(node.input(0)) : std::nullopt;
    if (!count || count->size() != 1 || count->front() <= 0) return false;
    count_ = count->front();
    const auto tensor = node.attr_tensor("value");
    if (!tensor || (*tensor && (*tensor)->size() != 1)) return false;
    out_.fill = *tensor ? **tensor : Tensor(DType::f32, {1});
    if (wanted) {
      auto cast = convert(out_.fill.view(), *wanted);
      if (!cast) return false;
      out_.fill = std::move(*cast);
    }
    out_.dtype = out_.fill.dtype();
    return has_sparse_form(out_.dtype);
  }

  bool positions(std::string_view value) {
    const Node sum = made_by("CumSum", value);
    if (!sum || sum.attr_int("exclusive", 0) != 0 || sum.attr_int("reverse", 0) != 0 || !constant(sum.input(1)))
      return false;
    const Node cast = made_by("Cast", sum.input(0));
    const auto type = cast ? constant(cast.input(0)) : std::nullopt;
    if (!type || (type->first != DType::u8 && type->first != DType::u16) || type->second.size() != 1) return false;
    out_.gaps = cast.input(0);
    stored_ = type->second;
    return true;
  }

  bool elements(std::string_view value) {
    if (const Node gather = made_by("Gather", value)) {
      const Node cast = made_by("Cast", gather.input(1));
      const auto codes = cast ? constant(cast.input(0)) : std::nullopt;
      const auto table = constant(gather.input(0));
      if (!codes || codes->first != DType::u8 || codes->second != stored_ || gather.attr_int("axis", 0) != 0)
        return false;
      if (!table || table->first != out_.dtype || table->second.size() != 1) return false;
      out_.codes = cast.input(0);
      out_.values = gather.input(0);
      return true;
    }
    if (const Node cast = made_by("Cast", value)) {
      const auto halves = constant(cast.input(0));
      out_.values = cast.input(0);
      return halves && halves->first == DType::f16 && halves->second == stored_;
    }
    const auto plain = constant(value);
    out_.values = value;
    return plain && plain->first == out_.dtype && plain->second == stored_;
  }

  void shape(const Node& scatter) {
    out_.dims = {count_};
    const auto& uses = graph_.uses(scatter.output(0));
    if (uses.size() != 1 || !uses[0].node || uses[0].captured || graph_.is_output(scatter.output(0))) return;
    const Node reshape = uses[0].node;
    if (!reshape.is("Reshape") || uses[0].slot != 0) return;
    const std::size_t before = out_.constants.size();
    const auto dims = literal(reshape.input(1));
    if (!dims || std::ranges::any_of(*dims, [](std::int64_t dim) { return dim <= 0; })) {
      out_.constants.resize(before);
      return;
    }
    out_.nodes.push_back(reshape);
    out_.value = reshape.output(0);
    out_.dims = *dims;
  }

  const Graph& graph_;
  StoredSparse out_;
  std::int64_t count_ = 0;
  Dims stored_;
};

Result<Tensor> read(const StoredSparse& weight, const std::string& name) {
  OP_LET(auto tensor, weight.graph->constant(name));
  if (!tensor) return fail(Code::internal, "'{}' is not constant", name);
  return std::move(*tensor);
}

}  // namespace

std::vector<StoredSparse> stored_sparse(const Graph& graph) {
  std::vector<StoredSparse> found;
  for (const Node& node : graph.nodes())
    if (node.is("ScatterElements"))
      if (auto weight = Match(graph).run(node)) found.push_back(std::move(*weight));
  return found;
}

Result<Tensor> stored_values(const StoredSparse& weight) {
  OP_LET(Tensor values, read(weight, weight.values));
  if (weight.codes.empty())
    return values.dtype() == weight.dtype ? std::move(values) : convert(values.view(), weight.dtype);
  OP_LET(const Tensor codes, read(weight, weight.codes));
  std::vector<std::uint32_t> rows;
  for (const std::uint8_t code : codes.as<std::uint8_t>()) {
    if (code >= values.size())
      return fail(Code::bad_input, "weight '{}': code {} of a table of {}", weight.value, code, values.size());
    rows.push_back(code);
  }
  return take(values.view(), rows);
}

Result<std::vector<std::uint32_t>> stored_positions(const StoredSparse& weight) {
  OP_LET(const Tensor gaps, read(weight, weight.gaps));
  auto positions = positions_of(gaps.view(), element_count(weight.dims).value_or(0));
  if (!positions) return rethrow(std::move(positions).error(), "weight '" + weight.value + "'");
  return positions;
}

}  // namespace onnxpress
