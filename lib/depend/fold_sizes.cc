#include "depend/fold_sizes.h"

#include <algorithm>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "depend/sizes.h"
#include "ir/rewriter.h"

namespace onnxpress {
namespace {

// Shape(), and what an exporter computes from it; Cast decides the type.
DType integer_type(const Graph& graph, std::string_view value, int depth = 32) {
  const DType known = graph.type(value).dtype;
  if (known != DType::undefined) return known;
  if (const auto constant = graph.constant_type(value)) return constant->first;
  const Node node = graph.producer(value);
  if (!node || depth == 0) return DType::undefined;
  if (node.is("Shape")) return DType::i64;
  if (node.is("Cast")) return static_cast<DType>(node.attr_int("to", 0));
  return integer_type(graph, node.input(node.is("Where") ? 1 : 0), depth - 1);
}

// The tensor a computed value always is; none when a part of it is not known.
std::optional<Tensor> known_tensor(const Graph& graph, const Sizes& sizes, std::string_view value) {
  const SizeList integers = sizes.integers(value), shape = sizes.shape(value);
  const DType dtype = integer_type(graph, value);
  if (!integers || !shape || shape->size() > 1 || (dtype != DType::i64 && dtype != DType::i32)) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const Dim& dim : *integers) {
    if (!dim.value) return std::nullopt;
    numbers.push_back(*dim.value);
  }
  const auto count = static_cast<std::int64_t>(numbers.size());
  if (shape->empty() && count != 1) return std::nullopt;
  auto tensor = convert(Tensor::of_int64s(shape->empty() ? Dims{} : Dims{count}, numbers).view(), dtype);
  return tensor ? std::optional(std::move(*tensor)) : std::nullopt;
}

class Fold {
 public:
  explicit Fold(Graph& graph) : graph_(graph), sizes_(graph), rewriter_(graph) {}

  Result<bool> run() {
    for (const Node& node : graph_.nodes())
      for (std::size_t slot = 0; slot < node.input_count(); ++slot) replace(node, slot);
    erase_unused();
    return rewriter_.commit();
  }

 private:
  bool computes_integers(const Node& node) const {
    return !node.is("Constant") && node.output_count() == 1 && sizes_.integers(node.output(0)).has_value();
  }
  bool known(std::string_view value) {
    const auto [at, fresh] = known_.try_emplace(std::string(value));
    if (fresh && !graph_.is_constant(value) && graph_.producer(value)) at->second = known_tensor(graph_, sizes_, value);
    return at->second.has_value();
  }

  void replace(const Node& node, std::size_t slot) {
    const std::string value(node.input(slot));
    if (value.empty() || !known(value)) return;
    if (computes_integers(node) && known(node.output(0))) return;  // replaced behind
    auto& constant = constants_[value];
    if (constant.empty()) {
      constant = rewriter_.fresh_value(value + "_known");
      rewriter_.add_initializer(constant, *known_[value]);
    }
    rewriter_.set_input(node, slot, constant);
    replaced_.insert({node.proto(), slot});
  }

  void erase_unused() {
    std::unordered_set<const void*> erased;
    const auto& nodes = graph_.nodes();
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
      if (!computes_integers(*node) || graph_.is_output(node->output(0))) continue;
      const auto& uses = graph_.uses(node->output(0));
      const bool used = std::ranges::any_of(uses, [&](const Use& use) {
        return !use.node || use.captured ||
               (!erased.contains(use.node.proto()) && !replaced_.contains({use.node.proto(), use.slot}));
      });
      if (used || uses.empty()) continue;  // what nobody read before is not ours
      rewriter_.erase(*node);
      erased.insert(node->proto());
    }
  }

  Graph& graph_;
  const Sizes sizes_;
  Rewriter rewriter_;
  std::unordered_map<std::string, std::optional<Tensor>> known_;
  std::unordered_map<std::string, std::string> constants_;  // new constants by what they replace
  std::set<std::pair<const void*, std::size_t>> replaced_;  // reads
};

}  // namespace

Result<bool> fold_known_sizes(Graph& graph) {
  if (graph.kind() == Graph::Kind::function) return false;
  return Fold(graph).run();
}

}  // namespace onnxpress
