// clean-duplicates: initializers with equal bytes become one.
//
//   <float[2] a = {1,2}, float[2] b = {1,2}>            <float[2] a = {1,2}>
//   y = Add(x, a); z = Mul(y, b)                  =>    y = Add(x, a); z = Mul(y, a)
//
// Equal means: same scope, dtype, dims and bytes. The first stays, or the one that is a graph output. Kept:
// initializers that callers may override (also graph inputs), that are graph outputs, or that a nested body hands out.
// Tensors are read one at a time and compared byte by byte when their hashes agree.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "base/hash.h"
#include "ir/rewriter.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

using Group = std::vector<Initializer>;

// Initializers of one dtype and shape, in file order; groups in the order of their first member.
std::vector<Group> same_type_groups(const Graph& graph) {
  std::vector<Group> groups;
  std::map<std::pair<DType, Dims>, std::size_t> index;
  for (const Initializer& initializer : graph.initializers()) {
    if (initializer.dtype() == DType::string || !graph.constant_initializer(initializer.name())) continue;
    const auto [at, fresh] = index.try_emplace({initializer.dtype(), initializer.dims()}, groups.size());
    if (fresh) groups.emplace_back();
    groups[at->second].push_back(initializer);
  }
  return groups;
}

Result<bool> equal_bytes(const Initializer& a, const Initializer& b) {
  OP_LET(const Tensor first, a.read());
  OP_LET(const Tensor second, b.read());
  return std::ranges::equal(first.bytes(), second.bytes());
}

// Splits a group by content; what is left alone is dropped.
Result<std::vector<Group>> same_content_groups(const Group& group) {
  std::vector<Group> result;
  std::map<std::string, std::vector<std::size_t>> by_hash;
  for (const Initializer& initializer : group) {
    std::string hash;
    {
      OP_LET(const Tensor tensor, initializer.read());
      hash = hash_hex(tensor.bytes());
    }
    std::vector<std::size_t>& alike = by_hash[hash];
    bool placed = false;
    for (const std::size_t i : alike) {
      OP_LET(placed, equal_bytes(result[i].front(), initializer));
      if (!placed) continue;
      result[i].push_back(initializer);
      break;
    }
    if (placed) continue;
    alike.push_back(result.size());
    result.push_back({initializer});
  }
  std::erase_if(result, [](const Group& g) { return g.size() < 2; });
  return result;
}

class CleanDuplicates final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Outcome outcome;
    for (Graph* graph : model.graphs()) {
      if (graph->kind() == Graph::Kind::function) continue;  // functions have no initializers
      Rewriter rewriter(*graph);
      for (const Group& group : same_type_groups(*graph)) {
        if (group.size() < 2) continue;
        OP_LET(const std::vector<Group> equal, same_content_groups(group));
        for (const Group& copies : equal) merge(*graph, copies, rewriter, context);
      }
      OP_LET(const bool changed, rewriter.commit());
      outcome.changed |= changed;
    }
    return outcome;
  }

 private:
  static void merge(const Graph& graph, const Group& copies, Rewriter& rewriter, PassContext& context) {
    const auto handed_out = [&](const Initializer& i) { return graph.is_output(i.name()); };
    const auto output = std::ranges::find_if(copies, handed_out);
    const Initializer keep = output != copies.end() ? *output : copies.front();
    for (const Initializer& copy : copies) {
      if (copy == keep) continue;
      if (handed_out(copy)) {
        context.journal.note(
            fmt::format("'{}' kept beside its equal '{}': it is a graph output", copy.name(), keep.name()));
        continue;
      }
      if (!readers_selected(graph, copy, context)) continue;
      if (!rewriter.replace_uses(copy.name(), keep.name())) {
        context.journal.note(
            fmt::format("'{}' kept beside its equal '{}': a nested body hands it out or hides the other", copy.name(),
                        keep.name()));
        continue;
      }
      for (const Use& use : graph.uses(copy.name()))
        context.done(use.node, fmt::format("reads '{}' instead of its equal '{}'", keep.name(), copy.name()));
      rewriter.remove_initializer(copy);
    }
  }

  static bool readers_selected(const Graph& graph, const Initializer& copy, PassContext& context) {
    bool selected = true;
    for (const Use& use : graph.uses(copy.name()))
      if (use.node) selected = context.selected(use.node) && selected;
    return selected;
  }
};

}  // namespace

PassInfo info_clean_duplicates() {
  return describe_pass<CleanDuplicates>(
      {.summary = "Merges initializers with equal bytes",
       .description =
           "y = Add(x, a); z = Mul(y, b)  =>  y = Add(x, a); z = Mul(y, a)   when a and b hold the same tensor\n\n"
           "Initializers of one graph with the same element type, shape and bytes become one, and every node reads "
           "that one. Never touched: initializers that are also graph inputs or outputs, and strings. only= and skip= "
           "name the nodes that read the copies.",
       .example = "clean-duplicates"});
}

}  // namespace onnxpress
