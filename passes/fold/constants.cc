// fold-constants: what can be computed now is not computed at every run.
//
//   <float[2,3] W>                                      <float[3,2] V>
//   V = Transpose(W); y = MatMul(x, V)            =>    y = MatMul(x, V)
//
// A node folds when all its inputs are constant (initializers that callers cannot override, Constant nodes, results of
// nodes that fold), or when it is a Shape or Size of a value whose shape is fully known. The engine evaluates whole
// regions of such nodes; the values that the rest of the model reads become initializers, constants that nothing else
// read go. Kept, with a reason: random ops, ops of other domains, nodes with bodies, DequantizeLinear and Cast
// of weights to a wider type and nodes of weights stored sparse (folding them would undo a compression), graph outputs,
// nodes of functions, results that are not dense numeric tensors, nodes that the engine refuses, and whatever would
// make the file grow by more than max_bytes:
//
//   growth of a region = bytes of its results - bytes of the constants that only it read
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "ir/edit.h"
#include "ir/extract.h"
#include "ir/rewriter.h"
#include "pass/pass.h"
#include "pass/stored_sparse.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kFreeInitializers = 4;       // the first IR version with initializers that are not inputs
constexpr std::uint64_t kBatchBytes = 64ULL << 20;  // constants read by one evaluation, where regions allow
constexpr std::uint64_t kLargest = 1ULL << 30;      // no value inside a region may be larger
constexpr std::uint64_t kWideningBytes = 4096;      // a Cast that adds more than this widens weights
constexpr std::uint64_t kJoinBytes = 4096;          // regions that share a constant this large are weighed together

struct Options {
  std::int64_t max_bytes = 1 << 20;
  bool dequantize = false;
};

using Nodes = std::vector<Node>;
using NodeSet = std::unordered_set<const onnx::NodeProto*>;
using Values = std::unordered_map<std::string, Tensor>;

NodeSet set_of(const Nodes& nodes) {
  NodeSet set;
  for (const Node& node : nodes) set.insert(node.proto());
  return set;
}

bool is_shape_query(const Node& node) {
  return (node.is("Shape") || node.is("Size")) && node.graph().type(node.input(0)).static_shape();
}

// Shape or Size of a fully known shape.
Tensor answer(const Node& node) {
  const Dims dims = *node.graph().type(node.input(0)).static_shape();
  if (node.is("Size")) return Tensor::scalar(DType::i64, static_cast<std::int64_t>(element_count(dims).value_or(0)));
  const auto rank = static_cast<std::int64_t>(dims.size());
  const auto clamp = [&](std::int64_t at) { return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank); };
  const std::int64_t start = clamp(node.attr_int("start", 0));
  const std::int64_t end = std::max(start, clamp(node.attr_int("end", rank)));
  const Dims part(dims.begin() + start, dims.begin() + end);
  return Tensor::of_int64s({end - start}, part);
}

// Bytes of a value as far as its type tells.
std::uint64_t known_bytes(const Graph& graph, std::string_view value) {
  const ValueType type = graph.type(value);
  const auto dims = type.static_shape();
  return dims ? byte_count(type.dtype, *dims).value_or(0) : 0;
}

std::uint64_t constant_bytes(const Graph& graph, std::string_view value) {
  const auto type = graph.constant_type(value);
  return type ? byte_count(type->first, type->second).value_or(0) : 0;
}

// A DequantizeLinear, or a Cast of weights to a wider type: the file holds them small on purpose.
bool widens_weights(const Node& node) {
  if (node.is("DequantizeLinear")) return true;
  if (!node.is("Cast")) return false;
  return known_bytes(node.graph(), node.output(0)) > known_bytes(node.graph(), node.input(0)) + kWideningBytes;
}

// Values of these nodes that something outside of them reads.
std::vector<std::string> results_of(const Node& node, const NodeSet& region) {
  std::vector<std::string> results;
  for (std::string& output : node.outputs())
    if (!output.empty() && std::ranges::any_of(node.graph().uses(output), [&](const Use& use) {
          return !use.node || !region.contains(use.node.proto());
        }))
      results.push_back(std::move(output));
  return results;
}

// Constants the nodes read that are not made by them, each once.
std::vector<std::string> sources_of(const Nodes& nodes) {
  std::set<std::string> seen = {""};
  for (const Node& node : nodes)
    for (std::string& output : node.outputs()) seen.insert(std::move(output));
  std::vector<std::string> sources;
  for (const Node& node : nodes)
    if (!is_shape_query(node))
      for (std::string& input : node.inputs())
        if (seen.insert(input).second) sources.push_back(std::move(input));
  return sources;
}

// Sources that only the nodes read: they go with them.
std::vector<std::string> spent_sources(const Graph& graph, const Nodes& nodes, const NodeSet& region) {
  std::vector<std::string> sources = sources_of(nodes);
  std::erase_if(sources, [&](const std::string& source) {
    return !is_private_constant(graph, source,
                                [&](const Use& use) { return use.node && region.contains(use.node.proto()); });
  });
  return sources;
}

// Nodes that hang together through values they make or a large constant they share, each region in graph order.
std::vector<Nodes> split_regions(const Graph& graph, const Nodes& nodes) {
  std::vector<std::size_t> parent(nodes.size());
  std::iota(parent.begin(), parent.end(), 0);
  const auto find = [&](std::size_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  std::unordered_map<std::string, std::size_t> owner;  // of a value or a large constant: the first node that has it
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& input : nodes[i].inputs()) {
      const auto found = owner.find(input);
      if (found != owner.end()) {
        const auto [low, high] = std::minmax({find(i), find(found->second)});
        parent[high] = low;
      } else if (constant_bytes(graph, input) >= kJoinBytes) {
        owner.emplace(input, i);
      }
    }
    for (std::string& output : nodes[i].outputs()) owner.emplace(std::move(output), i);
  }
  std::vector<Nodes> regions(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) regions[find(i)].push_back(nodes[i]);
  std::erase_if(regions, [](const Nodes& region) { return region.empty(); });
  return regions;
}

// One sweep over one graph. Skipped nodes are collected, not journaled: a later sweep may do better.
class Folder {
 public:
  struct Log {
    std::unordered_map<const onnx::NodeProto*, bool> selected;  // asked once
    std::vector<std::pair<Node, std::string>> skipped;
  };
  Folder(Graph& graph, PassContext& context, const Options& options, Log& log)
      : graph_(graph), context_(context), options_(options), log_(log) {
    for (const StoredSparse& weight : stored_sparse(graph)) sparse_.merge(set_of(weight.nodes));
  }

  Result<bool> run() {
    std::vector<Nodes> regions = split_regions(graph_, candidates());
    bool changed = false;
    for (std::size_t first = 0; first < regions.size();) {
      std::vector<Nodes> batch;
      for (std::uint64_t bytes = 0; first < regions.size() && (batch.empty() || bytes < kBatchBytes); ++first) {
        for (const std::string& source : sources_of(regions[first])) bytes += constant_bytes(graph_, source);
        batch.push_back(std::move(regions[first]));
      }
      OP_LET(const bool folded, fold(std::move(batch)));
      changed |= folded;
    }
    return changed;
  }

 private:
  void skip(const Node& node, std::string reason) {
    log_.skipped.emplace_back(node, std::move(reason));
    refused_.insert(node.proto());
  }

  bool selected(const Node& node) {
    const auto [at, fresh] = log_.selected.try_emplace(node.proto(), false);
    if (fresh) at->second = context_.selected(node);
    return at->second;
  }

  // Nodes that can be known now, in graph order.
  Nodes candidates() {
    Nodes nodes;
    std::set<std::string, std::less<>> made;
    for (const Node& node : graph_.nodes()) {
      if (node.is("Constant") || !is_used(node)) continue;
      const auto is_known = [&](const std::string& input) {
        return input.empty() || made.contains(input) || graph_.is_constant(input);
      };
      const std::vector<std::string> inputs = node.inputs();
      const bool known = !inputs.empty() && std::ranges::all_of(inputs, is_known);
      if ((!known && !is_shape_query(node)) || !selected(node)) continue;
      if (std::string reason = refusal(node); !reason.empty()) {
        skip(node, std::move(reason));
        continue;
      }
      nodes.push_back(node);
      for (std::string& output : node.outputs()) made.insert(std::move(output));
    }
    return nodes;
  }

  bool is_used(const Node& node) const {
    return std::ranges::any_of(node.outputs(), [&](const std::string& output) {
      return !output.empty() && (graph_.is_output(output) || !graph_.uses(output).empty());
    });
  }

  std::string refusal(const Node& node) const {
    static constexpr std::array<std::string_view, 7> random = {
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
        "Multinomial",  "Bernoulli",        "Dropout"};
    if (graph_.kind() == Graph::Kind::function) return "functions are not folded";
    if (!node.domain().empty()) return fmt::format("op of domain '{}'", node.domain());
    if (std::ranges::find(random, node.op()) != random.end()) return "its result may be random";
    if (node.has_subgraph()) return "it has a body";
    if (!options_.dequantize && (widens_weights(node) || sparse_.contains(node.proto())))
      return "folding it would undo the compression of its weights";
    for (const std::string& output : node.outputs()) {
      if (output.empty()) continue;
      const ValueType type = graph_.type(output);
      if (graph_.is_output(output)) return "its output is an output of the graph";
      if (!type.is_tensor || type.dtype == DType::string) return "its result is not a tensor of numbers";
      if (known_bytes(graph_, output) > kLargest) return "its result would be too large to compute";
    }
    return {};
  }

  // Takes the refused nodes, and all that needs them, out of a region.
  void drop_refused(Nodes& region) const {
    std::set<std::string, std::less<>> lost;
    std::erase_if(region, [&](const Node& node) {
      const auto is_lost = [&](const std::string& input) { return lost.contains(input); };
      if (!refused_.contains(node.proto()) && (is_shape_query(node) || std::ranges::none_of(node.inputs(), is_lost)))
        return false;
      for (std::string& output : node.outputs()) lost.insert(std::move(output));
      return true;
    });
  }

  // `size` tells the bytes of a result. Refuses nodes until no region outgrows the limit; true when any was refused.
  bool refuse_growth(std::vector<Nodes>& batch, const std::function<std::uint64_t(const std::string&)>& size) {
    bool refused = false;
    for (Nodes& region : batch) {
      const NodeSet inside = set_of(region);
      std::uint64_t bytes = 0, largest = 0, freed = 0;
      Node culprit;
      for (const Node& node : region) {
        for (const std::string& result : results_of(node, inside)) {
          const std::uint64_t one = size(result);
          bytes += one;
          if (one > largest) culprit = node;
          largest = std::max(largest, one);
        }
      }
      for (const std::string& source : spent_sources(graph_, region, inside)) freed += constant_bytes(graph_, source);
      if (!culprit || bytes <= freed + static_cast<std::uint64_t>(options_.max_bytes)) continue;
      skip(culprit,
           fmt::format("the file would grow by {} bytes, more than max_bytes={}", bytes - freed, options_.max_bytes));
      drop_refused(region);
      refused = true;
    }
    return refused;
  }

  // The values that `nodes`, closed under what they need, hand to others.
  Result<Values> evaluate(const Nodes& nodes) const {
    const NodeSet inside = set_of(nodes);
    Part part;
    Values values;
    for (const Node& node : nodes) {
      const bool answered = is_shape_query(node);
      if (answered) part.given.push_back({std::string(node.output(0)), answer(node)});
      if (!answered) part.nodes.push_back(node);
      for (std::string& result : results_of(node, inside)) {
        if (answered) {
          values.emplace(result, part.given.back().tensor);
        } else {
          part.outputs.push_back(std::move(result));
        }
      }
    }
    if (part.outputs.empty()) return values;
    OP_LET(std::vector<Tensor> results, context_.runner->run(extract(graph_, part), {}));
    if (results.size() != part.outputs.size()) return fail(Code::engine, "the engine returned too few results");
    for (std::size_t i = 0; i < results.size(); ++i) values.emplace(part.outputs[i], std::move(results[i]));
    return values;
  }

  static Nodes flatten(const std::vector<Nodes>& batch) {
    Nodes nodes;
    for (const Nodes& region : batch) nodes.insert(nodes.end(), region.begin(), region.end());
    return nodes;
  }

  // As evaluate(), but a node that the engine fails on is refused, with all that needs it.
  Values evaluate_what_runs(std::vector<Nodes>& batch) {
    while (true) {
      const Nodes nodes = flatten(batch);
      Result<Values> values = evaluate(nodes);
      if (values) return std::move(*values);
      // The shortest prefix that fails ends with the culprit: every prefix is closed under what it needs.
      std::size_t good = 0, bad = nodes.size();
      std::string reason = values.error().text();
      while (bad - good > 1) {
        const std::size_t middle = good + (bad - good) / 2;
        const Result<Values> part = evaluate(Nodes(nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(middle)));
        if (!part) reason = part.error().text();
        (part ? good : bad) = middle;
      }
      skip(nodes[bad - 1], "the engine cannot evaluate it: " + reason);
      for (Nodes& region : batch) drop_refused(region);
    }
  }

  Result<bool> fold(std::vector<Nodes> batch) {
    while (refuse_growth(batch, [&](const std::string& value) { return known_bytes(graph_, value); })) {
    }
    Values values;
    do {
      values = evaluate_what_runs(batch);
    } while (refuse_growth(batch, [&](const std::string& value) { return values.at(value).bytes().size(); }));
    return replace(batch, values);
  }

  Result<bool> replace(const std::vector<Nodes>& batch, Values& values) {
    const Nodes nodes = flatten(batch);
    const NodeSet inside = set_of(nodes);
    Rewriter rewriter(graph_);
    for (const std::string& source : spent_sources(graph_, nodes, inside)) drop_constant(rewriter, graph_, source);
    for (const Node& node : nodes) {
      const std::vector<std::string> results = results_of(node, inside);
      context_.done(node, results.empty() ? "folded away" : "folded into a constant");
      for (const std::string& output : node.outputs())
        if (!output.empty()) rewriter.forget_type(output);
      for (const std::string& result : results) {
        Tensor value = std::move(values.at(result));
        if (graph_.model().ir_version() < kFreeInitializers) {
          rewriter.insert_before(
              node, {.op = "Constant", .inputs = {}, .outputs = {result}, .attributes = {{"value", std::move(value)}}});
        } else {
          rewriter.add_initializer(result, std::move(value));
        }
      }
      rewriter.erase(node);
    }
    return rewriter.commit();
  }

  Graph& graph_;
  PassContext& context_;
  const Options& options_;
  Log& log_;
  NodeSet refused_;
  NodeSet sparse_;  // nodes of weights that are stored sparse
};

class FoldConstants final : public Pass {
 public:
  explicit FoldConstants(Options options) : options_(options) {}
  static void describe(Schema<Options>& schema) {
    schema.add("max_bytes", &Options::max_bytes, "bytes the file may grow by for one connected region of constants",
               {.min = 0, .max = 1e15});
    schema.add("dequantize", &Options::dequantize,
               "also fold DequantizeLinear, widening Casts of weights and weights stored sparse");
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (context.runner == nullptr) {
      context.journal.warning("fold-constants did nothing: there is no engine to evaluate nodes with");
      return Outcome{};
    }
    Outcome outcome;
    Folder::Log log;
    // A folded shape can make more shapes known, and a folded body frees constants around it.
    for (bool again = true; again;) {
      again = false;
      log.skipped.clear();
      for (Graph* graph : model.graphs()) {
        OP_LET(const bool changed, Folder(*graph, context, options_, log).run());
        again |= changed;
      }
      outcome.changed |= again;
    }
    for (const auto& [node, reason] : log.skipped) context.skipped(node, reason);
    return outcome;
  }

 private:
  Options options_;
};

}  // namespace

PassInfo info_fold_constants() {
  return describe_pass<FoldConstants, Options>(
      {.summary = "Evaluates nodes whose inputs are constant",
       .description =
           "V = Transpose(W); y = MatMul(x, V)  =>  y = MatMul(x, V)   with V an initializer\n\n"
           "The engine computes every node whose inputs are known before the model runs, and Shape and Size of values "
           "whose shape is fully known; the results become initializers and constants that nothing else reads go. "
           "A connected region of constants is folded as far as the file does not grow by more than max_bytes. "
           "Never touched: random ops, ops of other domains, nodes with bodies, functions, nodes that make a graph "
           "output, and, unless dequantize is on, DequantizeLinear, a Cast of weights to a wider type and the nodes of "
           "a weight that store-sparse wrote. A node that the engine refuses is skipped.",
       .example = "fold-constants{max_bytes=65536}"});
}

}  // namespace onnxpress
