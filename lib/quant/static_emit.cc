#include "quant/static_emit.h"

#include <algorithm>
#include <array>
#include <set>

namespace onnxpress {
namespace {

constexpr std::int64_t kPerChannelOpset = 13;

class Emitter {
 public:
  Emitter(const StaticPlan& plan, const RootParams& params, const SeenTypes& types, const CodeRules& rules,
          QdqWriter& writer, Rewriter& rewriter)
      : plan_(plan), params_(params), types_(types), rules_(rules), writer_(writer), rewriter_(rewriter) {
    for (const StaticNode& unit : plan.nodes) {
      units_[unit.node.proto()] = &unit;
      if (unit.quantize_output) made_.insert(unit.outputs.begin(), unit.outputs.end());
    }
  }

  Status run() {
    find_apart();
    for (const std::string& value : plan_.values) {
      const QdqWriter::Place place = {made_.contains(value), half(value), read_outside(value), !only_apart(value)};
      writer_.quantize(value, plan_.root(value), params_.at(plan_.root(value)), place);
    }
    for (const StaticNode& unit : plan_.nodes)
      for (const std::size_t slot : unit.data_slots) {
        const std::string value(unit.node.input(slot));
        if (!made_.contains(value) || half(value)) writer_.read(unit.node, slot);
      }
    for (const auto& [node, channels] : apart_)
      writer_.read_per_channel(node, 0, channels, params_.at(plan_.root(std::string(node.input(0)))));
    OP_TRY(write_constants());
    for (const StaticNode& unit : plan_.nodes)
      if (half(unit.outputs.front())) leave_half(unit);
    return {};
  }

 private:
  bool half(const std::string& value) const {
    const SeenType* type = types_.find(*plan_.graph, value);
    return type != nullptr && type->dtype == DType::f16;
  }

  bool reads_codes(const Use& use) const {
    if (!use.node || use.captured) return false;
    const auto unit = units_.find(use.node.proto());
    return unit != units_.end() && std::ranges::contains(unit->second->data_slots, use.slot);
  }

  // Whether anything but integer nodes reads the value.
  bool read_outside(const std::string& value) const {
    return plan_.graph->is_output(value) ||
           !std::ranges::all_of(plan_.graph->uses(value), [&](const Use& use) { return reads_codes(use); });
  }

  // ONNX Runtime 1.21 and newer quantizes the float weight of a Conv or Gemm behind a DequantizeLinear by itself, one
  // scale for all of it, and then computes in integers what was to stay float, or in a slow float form. One scale per
  // channel in the DequantizeLinear keeps it from that.
  void find_apart() {
    const Target target = resolve(rules_.target);
    const bool runtime = target == Target::ort_x86_vnni || target == Target::ort_x86 || target == Target::ort_arm64;
    if (!runtime || plan_.graph->model().opset() < kPerChannelOpset) return;
    for (const Node& node : plan_.graph->nodes()) {
      if (!node.is("Conv") && !node.is("ConvTranspose") && !node.is("Gemm")) continue;
      const std::string input(node.input(0));
      const auto weight = plan_.graph->constant_type(node.input(1));
      if (!weight || weight->second.size() < 2 || !made_.contains(input) || half(input)) continue;
      if (units_.contains(node.proto()) || node.attr_int("transA", 0) != 0) continue;
      std::int64_t channels = weight->second[node.is("Conv") || node.attr_int("transB", 0) != 0 ? 1 : 0];
      if (node.is("Conv")) channels *= node.attr_int("group", 1);
      apart_.emplace_back(node, channels);
    }
  }

  bool only_apart(const std::string& value) const {
    if (!made_.contains(value) || plan_.graph->is_output(value)) return false;
    return std::ranges::all_of(plan_.graph->uses(value), [&](const Use& use) {
      return use.slot == 0 && !use.captured &&
             std::ranges::contains(apart_, use.node, [](const auto& one) { return one.first; });
    });
  }

  Status write_constants() {
    for (const StaticNode& unit : plan_.nodes)
      for (const std::size_t slot : unit.constant_slots) {
        const std::string name(unit.node.input(slot));
        OP_LET(const auto tensor, plan_.graph->constant(name));
        OP_LET(const std::vector<float> values, to_floats(tensor->view()));
        const MinMax seen = min_max(values);
        const CodeParams params = choose_params({.min = seen.min, .max = seen.max}, {}, rules_);
        const TensorQuantization how{
            .dtype = params.dtype, .codes = code_range(params.dtype, false), .params = {params.affine}, .axis = {}};
        OP_LET(Tensor codes, quantize_tensor(values, tensor->dims(), how));
        rewriter_.set_input(unit.node, slot, writer_.constant(unit.node, name, std::move(codes), params));
      }
    return {};
  }

  // Integer nodes of a half-precision model work on float.
  void leave_half(const StaticNode& unit) {
    if (!unit.quantize_output) return writer_.to_half(unit.node);
    if (!unit.absorbed) return;
    rewriter_.forget_type(unit.node.output(0));
    const Node& activation = unit.absorbed->node;
    const std::array<std::optional<float>, 2> bounds = {unit.absorbed->low, unit.absorbed->high};
    for (std::size_t slot = 1; slot < activation.input_count(); ++slot) {
      if (activation.input(slot).empty() || !bounds[slot - 1]) continue;
      const std::string name = rewriter_.fresh_value(activation.input(slot));
      rewriter_.add_initializer(name, Tensor::scalar<float>(DType::f32, *bounds[slot - 1]));
      rewriter_.set_input(activation, slot, name);
    }
  }

  const StaticPlan& plan_;
  const RootParams& params_;
  const SeenTypes& types_;
  const CodeRules& rules_;
  QdqWriter& writer_;
  Rewriter& rewriter_;
  std::unordered_map<const onnx::NodeProto*, const StaticNode*> units_;
  std::set<std::string> made_;                        // by an integer node, so every reader takes what is dequantized
  std::vector<std::pair<Node, std::int64_t>> apart_;  // float nodes and their input channels
};

}  // namespace

Status emit_codes(const StaticPlan& plan, const RootParams& params, const SeenTypes& types, const CodeRules& rules,
                  QdqWriter& writer, Rewriter& rewriter) {
  return Emitter(plan, params, types, rules, writer, rewriter).run();
}

}  // namespace onnxpress
