#include "depend/blank.h"

#include <algorithm>
#include <array>

#include "depend/constant_edits.h"
#include "depend/cut.h"
#include "depend/literals.h"
#include "depend/sizes.h"
#include "ir/rewriters.h"
#include "num/channels.h"

namespace onnxpress {
namespace {

struct Place {
  std::string_view op;
  std::size_t slot;
};
// Where zero is not neutral.
constexpr std::array kNotNeutral = {Place{"Div", 1}, Place{"BatchNormalization", 4}, Place{"Pow", 1}, Place{"Mod", 1},
                                    Place{"QuantizeLinear", 1}};

bool neutral(const Node& node, std::size_t slot) {
  return std::ranges::none_of(kNotNeutral, [&](const Place& place) { return node.is(place.op) && place.slot == slot; });
}

// Statistics over an axis: what is silent still counts in them.
constexpr std::array kStatistics = {"LayerNormalization",
                                    "RMSNormalization",
                                    "SimplifiedLayerNormalization",
                                    "SkipLayerNormalization",
                                    "InstanceNormalization",
                                    "LRN",
                                    "MeanVarianceNormalization",
                                    "SkipSimplifiedLayerNormalization",
                                    "ReduceMean",
                                    "LpNormalization"};

bool takes_statistics(const Node& node) {
  return std::ranges::any_of(kStatistics, [&](const char* op) { return node.op() == op; });
}

// The zero point of a DequantizeLinear with one for all, as bytes; empty when there is none. None: per channel.
Result<std::optional<std::vector<std::byte>>> zero_point(const Node& node) {
  if (node.input(2).empty()) return std::vector<std::byte>();
  OP_LET(const std::optional<Tensor> value, node.graph().constant(node.input(2)));
  if (!value || value->size() != 1) return std::nullopt;
  return std::vector<std::byte>(value->bytes().begin(), value->bytes().end());
}

class Silence {
 public:
  Silence(Graph& graph, const KeptAxes& kept) : graph_(graph), kept_(kept), sizes_(graph), constants_(graph) {}

  Status plan() {
    for (const Node& node : graph_.nodes()) {
      const bool narrow = takes_statistics(node) && touches_values(node);
      if (narrow) narrow_.push_back(node);
      for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
        const auto type = graph_.constant_type(node.input(slot));
        if (!type) continue;
        AxisCuts cuts = cuts_of(kept_, input_ref(node, slot), type->second.size());
        if (cuts.empty()) continue;
        if (narrow) {
          std::string key = "cut" + cuts_key(cuts);
          constants_.set(node, slot, std::move(key),
                         [cuts = std::move(cuts)](const Tensor& tensor) { return cut_tensor(tensor.view(), cuts); });
        } else {
          OP_TRY(blank(node, slot, type->first, std::move(cuts)));
        }
      }
    }
    return {};
  }
  Status apply(unsigned jobs) {
    Rewriters rewriters(graph_.model());
    for (const Node& node : narrow_) OP_TRY(run_narrow(node, rewriters.of(graph_)));
    OP_TRY(constants_.apply(rewriters, jobs));
    OP_TRY(rewriters.commit());
    return {};
  }

 private:
  Status blank(const Node& node, std::size_t slot, DType dtype, AxisCuts cuts) {
    std::vector<std::byte> zero;
    if (node.is("DequantizeLinear") && slot == 0) {
      OP_LET(const auto point, zero_point(node));
      if (!point) return {};  // one per channel: the scales are zeroed with them
      zero = *point;
    } else if (!is_float(dtype) || !neutral(node, slot)) {
      return {};
    }
    std::string key = cuts_key(cuts);
    constants_.set(node, slot, std::move(key), [cuts = std::move(cuts), zero = std::move(zero)](Tensor tensor) {
      return blank_tensor(std::move(tensor), cuts, zero);
    });
    return {};
  }

  bool touches_values(const Node& node) const {
    for (std::size_t slot = 0; slot < node.input_count(); ++slot)
      if (const TensorRef ref = input_ref(node, slot); !ref.is_constant() && kept_.touches(ref)) return true;
    return false;
  }

  //   x ─► Norm ─► y    =>    x ─► Gather(what is left) ─► Norm ─► Gather(back in place) ─► Mul(0 in the gaps) ─► y
  Status run_narrow(const Node& node, Rewriter& rewriter) const {
    for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
      const TensorRef ref = input_ref(node, slot);
      std::string value = ref.value;
      if (ref.is_constant() || !kept_.touches(ref)) continue;
      for (const auto& [axis, kept] : cuts_of(kept_, ref, rank_of(ref.value)))
        value = gather(rewriter.fresh_value(ref.value), value, axis, {kept.begin(), kept.end()}, node, rewriter);
      rewriter.set_input(node, slot, value);
    }
    for (std::size_t slot = 0; slot < node.output_count(); ++slot)
      if (kept_.touches(output_ref(node, slot))) OP_TRY(widen(node, slot, rewriter));
    return {};
  }

  Status widen(const Node& node, std::size_t slot, Rewriter& rewriter) const {
    const std::string y(node.output(slot));
    const SizeList shape = sizes_.shape(y);
    const std::size_t rank = rank_of(y);
    const DType dtype = graph_.type(y).dtype;
    const AxisCuts cuts = cuts_of(kept_, output_ref(node, slot), rank);
    std::string value = rewriter.fresh_value(y);
    Node last = node;
    rewriter.set_output(node, slot, value);
    for (auto cut = cuts.begin(); cut != cuts.end(); ++cut) {
      const auto& [axis, kept] = *cut;
      const auto size = static_cast<std::size_t>((*shape)[axis].value.value_or(0));
      std::vector<std::int64_t> back = positions_of(kept, size);
      std::vector<double> here(size);
      for (std::size_t i = 0; i < size; ++i) here[i] = back[i] < 0 ? 0 : 1;
      std::ranges::replace(back, -1, 0);
      Dims dims(rank - axis, 1);
      dims.front() = static_cast<std::int64_t>(size);
      OP_LET(std::optional<Tensor> mask,
             from_doubles(here, dtype == DType::undefined ? DType::f32 : dtype, std::move(dims)));
      const std::string wide = rewriter.fresh_value(y), factors = rewriter.fresh_value(y);
      rewriter.add_initializer(factors, std::move(*mask));
      const std::string indices = add_indices(back, rewriter);
      last = rewriter.insert_after(last, {.op = "Gather",
                                          .inputs = {value, indices},
                                          .outputs = {wide},
                                          .attributes = {{"axis", static_cast<std::int64_t>(axis)}}});
      value = std::next(cut) == cuts.end() ? y : rewriter.fresh_value(y);
      last = rewriter.insert_after(last, {.op = "Mul", .inputs = {wide, factors}, .outputs = {value}});
    }
    return {};
  }

  std::size_t rank_of(std::string_view value) const {
    const SizeList shape = sizes_.shape(value);
    return shape ? shape->size() : 0;
  }

  static std::string add_indices(const std::vector<std::int64_t>& indices, Rewriter& rewriter) {
    std::string name = rewriter.fresh_value("indices");
    rewriter.add_initializer(name, Tensor::of_int64s({static_cast<std::int64_t>(indices.size())}, indices));
    return name;
  }

  static std::string gather(std::string result, const std::string& value, std::size_t axis,
                            const std::vector<std::int64_t>& indices, const Node& node, Rewriter& rewriter) {
    rewriter.insert_before(node, {.op = "Gather",
                                  .inputs = {value, add_indices(indices, rewriter)},
                                  .outputs = {result},
                                  .attributes = {{"axis", static_cast<std::int64_t>(axis)}}});
    return result;
  }

  Graph& graph_;
  const KeptAxes& kept_;
  const Sizes sizes_;
  ConstantEdits constants_;
  std::vector<Node> narrow_;
};

}  // namespace

Status blank_units(Model& model, Graph& graph, const KeptAxes& kept, unsigned jobs) {
  model.index();
  Silence silence(graph, kept);
  OP_TRY(silence.plan());
  return silence.apply(jobs);
}

}  // namespace onnxpress
