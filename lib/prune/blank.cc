#include "prune/blank.h"

#include <algorithm>
#include <array>

#include "ir/rewriters.h"
#include "prune/constant_edits.h"
#include "prune/cut.h"

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
  return std::ranges::none_of(kNotNeutral,
                              [&](const Place& place) { return node.is(place.op) && place.slot == slot; });
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
  Silence(Graph& graph, const KeptAxes& kept) : graph_(graph), kept_(kept), constants_(graph) {}

  Status plan() {
    for (const Node& node : graph_.nodes())
      for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
        const auto type = graph_.constant_type(node.input(slot));
        if (!type) continue;
        AxisCuts cuts = cuts_of(kept_, input_ref(node, slot), type->second.size());
        if (!cuts.empty()) OP_TRY(blank(node, slot, type->first, std::move(cuts)));
      }
    return {};
  }
  Status apply(unsigned jobs) {
    Rewriters rewriters(graph_.model());
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
    constants_.set(node, slot, cuts_key(cuts), [cuts = std::move(cuts), zero = std::move(zero)](Tensor tensor) {
      return blank_tensor(std::move(tensor), cuts, zero);
    });
    return {};
  }

  Graph& graph_;
  const KeptAxes& kept_;
  ConstantEdits constants_;
};

}  // namespace

Status blank_units(Model& model, Graph& graph, const KeptAxes& kept, unsigned jobs) {
  model.index();
  Silence silence(graph, kept);
  OP_TRY(silence.plan());
  return silence.apply(jobs);
}

}  // namespace onnxpress
