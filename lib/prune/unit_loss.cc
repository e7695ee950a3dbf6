#include "prune/unit_loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/progress.h"
#include "calib/divergence.h"
#include "ir/fork.h"
#include "ir/rewriter.h"

namespace onnxpress {
namespace {

// A constant as one node reads it, and for each axis the factors 0 and 1 along it.
using Masks = std::map<TensorRef, std::map<std::size_t, std::vector<float>>>;

bool silences(AxisRole role) {
  return role == AxisRole::produces || role == AxisRole::consumes || role == AxisRole::bias;
}

// Integers (quantized weights) have no mask: a code of zero need not mean zero.
bool can_mask(const Graph& graph, const TensorRef& tensor) {
  const auto type = graph.constant_type(tensor.value);
  if (!type) return false;
  return type->first == DType::f32 || type->first == DType::f16 || type->first == DType::bf16 ||
         type->first == DType::f64;
}

Result<Masks> masks_of(const Graph& graph, const DependencyGraph& dependencies, std::size_t group_index,
                       std::span<const std::uint32_t> units) {
  const UnitGroup& group = dependencies.groups()[group_index];
  Masks masks;
  bool readers = false, silent_readers = false;
  for (const GroupMember& member : group.members) {
    if (!member.tensor.is_constant() || !silences(member.role)) continue;
    readers = readers || member.role == AxisRole::consumes;
    if (!can_mask(graph, member.tensor)) continue;
    silent_readers = silent_readers || member.role == AxisRole::consumes;
    const std::size_t size = dependencies.size(member.tensor, member.axis);
    std::vector<float>& mask = masks[member.tensor].try_emplace(member.axis, size, 1.0F).first->second;
    for (const std::uint32_t unit : units)
      for (std::size_t k = 0; k < member.per_unit; ++k) mask[member.indices[unit * member.per_unit + k]] = 0;
  }
  if (masks.empty() || (readers && !silent_readers))
    return fail(Code::unsupported, "{}: no floating-point weight reads its units, so that none can be silenced",
                group.name);
  return masks;
}

// reader reads value * mask in place of value.
Status insert_mask(Rewriter& rewriter, const Node& reader, const TensorRef& tensor, const std::string& value,
                   std::size_t axis, const std::vector<float>& factors, std::string& masked) {
  const auto [dtype, dims] = *reader.graph().constant_type(tensor.value);
  Dims mask_dims(dims.size(), 1);
  mask_dims[axis] = static_cast<std::int64_t>(factors.size());
  OP_LET(Tensor mask, convert(Tensor::of_floats(std::move(mask_dims), factors).view(), dtype));
  const std::string name = rewriter.fresh_value(tensor.value + "_mask");
  rewriter.add_initializer(name, std::move(mask));
  masked = rewriter.fresh_value(tensor.value + "_masked");
  rewriter.insert_before(reader, {.op = "Mul", .inputs = {value, name}, .outputs = {masked}});
  return {};
}

}  // namespace

Result<Model> without_units(const Model& model, const Graph& graph, const DependencyGraph& dependencies,
                            std::size_t group, std::span<const std::uint32_t> units) {
  OP_LET(const Masks masks, masks_of(graph, dependencies, group, units));
  if (model.opset() < 7)
    return fail(Code::unsupported, "masks broadcast, which needs opset 7; the model has opset {}", model.opset());
  Model copy = model.clone();
  Graph& scope = scope_in(copy, graph);
  std::unordered_map<std::string, Node> readers;
  for (const Node& node : scope.nodes()) readers.emplace(reader_key(node), node);
  Rewriter rewriter(scope);
  for (const auto& [tensor, axes] : masks) {
    const Node reader = readers.at(tensor.reader);
    std::string value = tensor.value;
    for (const auto& [axis, factors] : axes) {
      std::string masked;
      OP_TRY(insert_mask(rewriter, reader, tensor, value, axis, factors, masked));
      value = std::move(masked);
    }
    rewriter.set_input(reader, tensor.slot, value);
  }
  OP_TRY(rewriter.commit());
  return copy;
}

Result<std::vector<double>> unit_losses(const Model& original, const Model& model, const Graph& graph,
                                        const DependencyGraph& dependencies, std::size_t group,
                                        Activations& activations) {
  std::vector<double> losses;
  const std::size_t units = dependencies.groups()[group].units;
  Progress progress("units", units);
  for (std::uint32_t unit = 0; unit < units; ++unit) {
    OP_LET(const Model changed, without_units(model, graph, dependencies, group, std::span(&unit, 1)));
    OP_LET(losses.emplace_back(), output_divergence(original, changed, activations));
    progress.tick();
  }
  return losses;
}

Result<std::vector<UnitScores>> loss_scores(const ScoreRequest& request, PassContext& context,
                                            std::vector<UnitScores> otherwise) {
  const GroupList groups = request.list();
  std::size_t units = 0, passes = 0;
  for (const UnitGroup* group : groups) units += group->units > 1 ? group->units : 0;
  if (units > kMostUnitLosses)
    return fail(Code::usage,
                "criterion=loss runs all samples once for each unit, and there are {} units, more than {}: choose "
                "fewer nodes with only=, or criterion=obs",
                units, kMostUnitLosses);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g]->units < 2) continue;
    auto losses = unit_losses(request.original, request.model, request.graph, request.dependencies, request.groups[g],
                              *context.activations);
    if (!losses && losses.error().code == Code::unsupported) {
      otherwise[g].note = losses.error().what + ": by group_l2";
      continue;
    }
    if (!losses) return rethrow(std::move(losses).error());
    passes += losses->size();
    otherwise[g] = {std::move(*losses), {}};
  }
  if (passes > 0)
    context.journal.note(fmt::format("criterion=loss: {} passes over {}, one for each unit", passes,
                                     context.activations->description()));
  return otherwise;
}

}  // namespace onnxpress
