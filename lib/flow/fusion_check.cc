#include "flow/fusion_check.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace onnxpress {
namespace {

bool is_code(DType type) {
  return type == DType::u8 || type == DType::i8 || type == DType::u16 || type == DType::i16 || type == DType::u4 ||
         type == DType::i4;
}

bool is_conversion(std::string_view op) { return op == "QuantizeLinear" || op == "DequantizeLinear"; }

std::string full_op(const OptimizedNode& node) { return node.domain.empty() ? node.op : node.domain + "." + node.op; }

class Checker {
 public:
  Checker(std::span<const NodeFate> fates, std::span<const OptimizedNode> runtime) : fates_(fates) {
    for (const OptimizedNode& node : runtime) {
      if (node.origin) named_[*node.origin].push_back(&node);
      for (const std::string& output : node.outputs)
        if (!output.empty()) makers_.emplace(output, &node);
    }
    for (const NodeFate& fate : fates)
      for (const std::string& output : fate.node.outputs()) producers_.emplace(output, &fate);
  }

  FusionCheck run() {
    FusionCheck out;
    for (std::size_t i = 0; i < fates_.size(); ++i) {
      const bool right = is_right(i), quantized = is_quantized(i);
      ++out.nodes;
      out.right += right;
      out.quantized += quantized;
      out.quantized_right += right && quantized;
      if (!right) {
        const Node& node = fates_[i].node;
        out.misses.push_back({node.label(), std::string(node.op()), predicted_text(fates_[i]), actual_text(i)});
      }
    }
    return out;
  }

 private:
  const OptimizedNode* named(std::size_t i) const {
    const auto found = named_.find(i);
    if (found == named_.end()) return nullptr;
    const auto original = std::ranges::find(found->second, false, &OptimizedNode::copy);
    return original == found->second.end() ? found->second.front() : *original;
  }

  const OptimizedNode* maker(const std::string& value) const {
    const auto found = makers_.find(value);
    return value.empty() || found == makers_.end() ? nullptr : found->second;
  }

  const OptimizedNode* maker_of(const Node& node) const {
    for (const std::string& output : node.outputs())
      if (const OptimizedNode* by = maker(output)) return by;
    return nullptr;
  }

  // The kernel stands behind a Reshape that the runtime added.
  const OptimizedNode* through_reshape(const OptimizedNode* node) const {
    if (node == nullptr || node->op != "Reshape" || node->origin || node->inputs.empty()) return node;
    return maker(node->inputs[0]);
  }

  static bool is_integer(const OptimizedNode& node) {
    if (is_integer_kernel(node.op, node.domain)) return true;
    return node.domain.empty() && !is_conversion(node.op) && !node.output_types.empty() &&
           is_code(node.output_types[0]);
  }

  bool is_right(std::size_t i) const {
    const NodeFate& fate = fates_[i];
    const OptimizedNode* own = named(i);
    const OptimizedNode* by = maker_of(fate.node);
    switch (fate.fate) {
      case Fate::integer: {
        const OptimizedNode* at = through_reshape(maker(fate.value));
        if (own != nullptr && full_op(*own) == fate.kernel)
          return fate.value.empty() || std::ranges::contains(own->outputs, fate.value) || at == nullptr;
        return at != nullptr && full_op(*at) == fate.kernel;
      }
      case Fate::absorbed:
        return own == nullptr && (by == nullptr || by->op != fate.node.op() || by->domain != fate.node.domain());
      case Fate::boundary:
        return own != nullptr && is_conversion(own->op);
      case Fate::floating:
        if (own != nullptr) return !is_integer(*own) || was_integer(fate.node);
        if (by != nullptr) return !is_integer(*by);
        return !vanished_beside_kernel(fate.node);
    }
    return false;
  }

  static bool was_integer(const Node& node) { return is_integer_kernel(node.op(), node.domain()); }

  bool vanished_beside_kernel(const Node& node) const {
    constexpr std::array<std::string_view, 4> kParts = {"Relu", "Clip", "Cast", "Mul"};
    if (!std::ranges::contains(kParts, node.op())) return false;
    return std::ranges::any_of(node.inputs(), [&](const std::string& input) {
      const auto from = producers_.find(input);
      return from != producers_.end() && from->second->fate == Fate::integer;
    });
  }

  bool is_quantized(std::size_t i) const {
    const NodeFate& fate = fates_[i];
    if (fate.fate == Fate::integer || fate.fate == Fate::boundary || is_conversion(fate.node.op())) return true;
    if (is_integer_kernel(fate.node.op(), fate.node.domain())) return true;
    const OptimizedNode* own = named(i);
    if (own != nullptr && is_integer(*own)) return true;
    const auto& inputs = fate.node.inputs();
    return std::ranges::any_of(inputs, [&](const std::string& input) {
      const auto from = producers_.find(input);
      return from != producers_.end() && from->second->node.op() == "DequantizeLinear";
    });
  }

  static std::string predicted_text(const NodeFate& fate) {
    switch (fate.fate) {
      case Fate::integer:
        return fate.kernel + (fate.value.empty() ? "" : " -> " + fate.value);
      case Fate::absorbed:
        return "gone: " + fate.why;
      case Fate::boundary:
        return "stays";
      case Fate::floating:
        return "float" + (fate.why.empty() ? "" : ": " + fate.why);
    }
    return {};
  }

  std::string actual_text(std::size_t i) const {
    const auto text = [](const OptimizedNode& node) {
      std::string out = full_op(node);
      if (!node.output_types.empty() && node.output_types[0] != DType::undefined)
        out += " (" + std::string(dtype_name(node.output_types[0])) + ")";
      return node.outputs.empty() ? out : out + " -> " + node.outputs[0];
    };
    if (const OptimizedNode* own = named(i)) return text(*own);
    if (const OptimizedNode* by = maker_of(fates_[i].node)) return "gone; its output comes from " + text(*by);
    return "gone";
  }

  std::span<const NodeFate> fates_;
  std::unordered_map<std::size_t, std::vector<const OptimizedNode*>> named_;
  std::unordered_map<std::string, const OptimizedNode*> makers_;
  std::unordered_map<std::string, const NodeFate*> producers_;
};

}  // namespace

FusionCheck check_fusion(std::span<const NodeFate> fates, std::span<const OptimizedNode> runtime) {
  return Checker(fates, runtime).run();
}

}  // namespace onnxpress
