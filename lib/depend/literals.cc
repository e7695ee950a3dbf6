#include "depend/literals.h"

#include <array>

#include "depend/shape_operand.h"

namespace onnxpress {
namespace {

constexpr std::array kFamilies = {shape_patchers, select_patchers, group_patchers, attention_patchers};

Patcher find_patcher(const Node& node) {
  static const auto table = [] {
    std::map<std::pair<std::string_view, std::string_view>, Patcher> all;
    for (const auto family : kFamilies)
      for (const OpPatcher& entry : family()) all.emplace(std::pair(entry.domain, entry.op), entry.patcher);
    return all;
  }();
  const auto found = table.find({node.domain(), node.op()});
  return found == table.end() ? nullptr : found->second;
}

bool touched(const Node& node, const KeptAxes& kept) {
  for (std::size_t i = 0; i < node.input_count(); ++i)
    if (kept.touches(input_ref(node, i))) return true;
  for (std::size_t i = 0; i < node.output_count(); ++i)
    if (kept.touches(output_ref(node, i))) return true;
  return false;
}

// Numbers in the integer type of `like`.
Result<Tensor> integers(DType dtype, Dims dims, const std::vector<std::int64_t>& numbers) {
  Tensor wide = Tensor::of_int64s(std::move(dims), numbers);
  if (dtype == DType::i64) return wide;
  return convert(wide.view(), dtype);
}

}  // namespace

Result<std::optional<std::vector<std::int64_t>>> NodePatch::literal(std::size_t slot) const {
  if (node_.input(slot).empty()) return std::nullopt;
  OP_LET(const std::optional<Tensor> tensor, node_.graph().constant(node_.input(slot)));
  if (!tensor) return std::nullopt;
  auto numbers = to_int64s(tensor->view());
  if (!numbers) return rethrow(std::move(numbers).error(), "node " + node_.label());
  return std::move(*numbers);
}

std::unexpected<Error> NodePatch::refuse(std::string_view reason) const {
  return fail(Code::unsupported, "node {} ({}): {}", node_.label(), node_.op(), reason);
}

Status NodePatch::set_literal(std::size_t slot, const std::vector<std::int64_t>& numbers) {
  const auto type = node_.graph().constant_type(node_.input(slot));
  if (!type) return refuse(fmt::format("input {} is computed at run time", slot));
  OP_LET(const auto old, literal(slot));
  if (old && *old == numbers) return {};
  Dims dims = type->second;
  if (!old || old->size() != numbers.size()) dims = {static_cast<std::int64_t>(numbers.size())};
  OP_LET(Tensor tensor, integers(type->first, std::move(dims), numbers));
  edits.literals.insert_or_assign(slot, std::move(tensor));
  return {};
}

void NodePatch::add_literal(std::size_t slot, const std::vector<std::int64_t>& numbers) {
  edits.literals.insert_or_assign(slot, Tensor::of_int64s({static_cast<std::int64_t>(numbers.size())}, numbers));
}

Status NodePatch::set_shape(std::size_t slot,
                            const std::function<std::optional<std::int64_t>(std::size_t i, std::int64_t old)>& number) {
  const Graph& graph = node_.graph();
  if (graph.is_constant(node_.input(slot))) {
    OP_LET(auto numbers, literal(slot));
    for (std::size_t i = 0; i < numbers->size(); ++i) (*numbers)[i] = number(i, (*numbers)[i]).value_or((*numbers)[i]);
    return set_literal(slot, *numbers);
  }
  const ShapeOrigin origin = shape_origin(graph, node_.input(slot));
  const Node concat = graph.producer(origin.value);
  if (!concat || !concat.is("Concat")) return {};
  std::size_t at = 0;
  for (std::size_t part = 0; part < concat.input_count(); ++part) {
    OP_LET(const std::optional<Tensor> tensor, graph.constant(concat.input(part)));
    if (!tensor) {
      const auto length = dim(concat.input(part), 0);
      if (!length) return refuse("its shape is put together from parts of unknown length");
      at += static_cast<std::size_t>(*length);
      continue;
    }
    OP_LET(std::vector<std::int64_t> numbers, to_int64s(tensor->view()));
    const std::vector<std::int64_t> before = numbers;
    for (std::int64_t& old : numbers) {
      if (origin.chosen && old == -1) old = 1;  // the node will read the Concat itself
      old = number(at++, old).value_or(old);
    }
    if (numbers == before) continue;
    OP_LET(Tensor patched, integers(tensor->dtype(), tensor->dims(), numbers));
    edits.parts.insert_or_assign({slot, part}, std::move(patched));
  }
  return {};
}

std::optional<std::size_t> NodePatch::rank(std::string_view value) const {
  const SizeList shape = sizes_.shape(value);
  return shape ? std::optional(shape->size()) : std::nullopt;
}

std::optional<std::int64_t> NodePatch::dim(std::string_view value, std::size_t axis) const {
  const SizeList shape = sizes_.shape(value);
  return shape && axis < shape->size() ? (*shape)[axis].value : std::nullopt;
}

Result<NodeEdits> patch_node(const Node& node, const KeptAxes& kept, const Sizes& sizes) {
  const Patcher patcher = find_patcher(node);
  if (patcher == nullptr || !touched(node, kept)) return NodeEdits();
  NodePatch patch(node, kept, sizes);
  OP_TRY(patcher(patch));
  return std::move(patch.edits);
}

std::vector<std::int64_t> positions_of(const Indices& kept, std::size_t size) {
  std::vector<std::int64_t> positions(size, -1);
  for (std::size_t i = 0; i < kept.size(); ++i)
    if (kept[i] < size) positions[kept[i]] = static_cast<std::int64_t>(i);
  return positions;
}

}  // namespace onnxpress
