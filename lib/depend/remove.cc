#include "depend/remove.h"

#include <algorithm>
#include <set>

#include "depend/constant_edits.h"
#include "depend/cut.h"
#include "depend/fold_sizes.h"
#include "depend/literals.h"
#include "depend/shape_operand.h"
#include "ir/declared.h"
#include "ir/edit.h"
#include "ir/fork.h"
#include "ir/rewriters.h"

namespace onnxpress {
namespace {

std::string tensor_key(const Tensor& tensor) {
  return fmt::format("={}{}:", static_cast<int>(tensor.dtype()), dims_text(tensor.dims())) +
         std::string(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size());
}

// Everything that is going to change, before anything does.
class RemovalPlan {
 public:
  RemovalPlan(Graph& graph, const KeptAxes& kept) : graph_(graph), kept_(kept), sizes_(graph), constants_(graph) {}

  Status make() {
    if (graph_.proto() == nullptr)
      return fail(Code::unsupported, "'{}' is a function, which holds no constants; inline functions first",
                  graph_.name());
    for (const auto& [axis, kept] : kept_.all()) {
      const TensorRef& tensor = axis.first;
      if (kept.empty()) return fail(Code::unsupported, "nothing would be left of '{}'", tensor.value);
      if (!tensor.is_constant() && (graph_.is_input(tensor.value) || graph_.is_output(tensor.value)))
        return fail(Code::unsupported, "'{}' is an input or output of the graph", tensor.value);
    }
    for (const Node& node : graph_.nodes()) {
      OP_LET(NodeEdits edits, patch_node(node, kept_, sizes_));
      OP_TRY(add_constants(node, edits));
      for (auto& [place, tensor] : edits.parts) parts_[{node.proto(), place.first}].emplace(place.second, tensor);
      nodes_.emplace_back(node, std::move(edits));
    }
    for (const auto& [node, edits] : nodes_) plan_parts(node);
    return {};
  }

  Result<bool> apply(unsigned jobs) {
    Rewriters rewriters(graph_.model());
    for (const auto& [node, edits] : nodes_) edit_node(node, edits, rewriters.of(graph_));
    for (const auto& clone : clones_) add_clone(clone, rewriters.of(graph_));
    OP_TRY(constants_.apply(rewriters, jobs));
    const auto dims = value_dims();
    OP_LET(const bool changed, rewriters.commit());
    set_declared_dims(graph_, dims);
    return changed;
  }

 private:
  using Parts = std::map<std::size_t, Tensor>;  // new constants of a Concat, by input
  struct Clone {
    Node concat;
    Parts parts;
    std::vector<Use> readers;
  };

  Status add_constants(const Node& node, const NodeEdits& edits) {
    for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
      const auto type = node.graph().constant_type(node.input(slot));
      if (!type) continue;
      if (const auto literal = edits.literals.find(slot); literal != edits.literals.end()) {
        set_constant(node, slot, literal->second);
        continue;
      }
      AxisCuts cuts = cuts_of(kept_, input_ref(node, slot), type->second.size());
      if (cuts.empty()) continue;
      if (Status fits = check_cuts(type->first, type->second, cuts); !fits)
        return rethrow(std::move(fits).error(), "node " + node.label());
      std::string key = cuts_key(cuts);
      constants_.set(node, slot, std::move(key),
                     [cuts = std::move(cuts)](const Tensor& tensor) { return cut_tensor(tensor.view(), cuts); });
    }
    return {};
  }

  void set_constant(const Node& node, std::size_t slot, const Tensor& tensor) {
    constants_.set(node, slot, tensor_key(tensor), [tensor](const Tensor&) -> Result<Tensor> { return tensor; });
  }

  // The Concats behind shapes of this node: patched in place when all who read them want the same.
  void plan_parts(const Node& node) {
    for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
      const auto wanted = parts_.find({node.proto(), slot});
      if (wanted == parts_.end()) continue;
      const Node concat = graph_.producer(shape_origin(graph_, node.input(slot)).value);
      const auto same = [&](const Use& use) {
        if (!use.node) return false;
        const auto other = parts_.find({use.node.proto(), use.slot});
        return other != parts_.end() && equal(other->second, wanted->second);
      };
      if (!graph_.is_output(concat.output(0)) && std::ranges::all_of(graph_.uses(concat.output(0)), same)) {
        for (const auto& [part, tensor] : wanted->second) set_constant(concat, part, tensor);
        continue;
      }
      const auto known = std::ranges::find_if(
          clones_, [&](const Clone& clone) { return clone.concat == concat && equal(clone.parts, wanted->second); });
      if (known == clones_.end()) {
        clones_.push_back({concat, wanted->second, {{node, slot, false}}});
      } else {
        known->readers.push_back({node, slot, false});
      }
    }
  }

  static bool equal(const Parts& a, const Parts& b) {
    return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
      return x.first == y.first && tensor_key(x.second) == tensor_key(y.second);
    });
  }

  void edit_node(const Node& node, const NodeEdits& edits, Rewriter& rewriter) const {
    std::string data(node.input(0));
    for (const auto& selection : edits.selections) data = select(node, data, selection, rewriter);
    if (!edits.selections.empty()) rewriter.set_input(node, 0, data);
    if (edits.gather) become_gather(node, *edits.gather, rewriter);
    for (const auto& [key, value] : edits.attributes) rewriter.set_attribute(node, key, value);
    for (const std::string& key : edits.removed_attributes) rewriter.remove_attribute(node, key);
    for (const auto& [slot, tensor] : edits.literals) {
      if (node.graph().is_constant(node.input(slot))) continue;  // replaced with the other constants
      const std::string name = rewriter.fresh_value(fmt::format("{}_{}", reader_key(node), slot));
      rewriter.add_initializer(name, tensor);
      rewriter.set_input(node, slot, name);
    }
  }

  static std::string add_indices(const Node& node, const NodeEdits::Selection& selection, Rewriter& rewriter) {
    std::string name = rewriter.fresh_value(reader_key(node) + "_kept");
    rewriter.add_initializer(
        name, Tensor::of_int64s({static_cast<std::int64_t>(selection.indices.size())}, selection.indices));
    return name;
  }

  // Returns the value that is left of `data`.
  static std::string select(const Node& node, const std::string& data, const NodeEdits::Selection& selection,
                            Rewriter& rewriter) {
    std::string selected = rewriter.fresh_value(reader_key(node) + "_selected");
    rewriter.insert_before(node, {.op = "Gather",
                                  .inputs = {data, add_indices(node, selection, rewriter)},
                                  .outputs = {selected},
                                  .attributes = {{"axis", selection.axis}}});
    return selected;
  }

  static void become_gather(const Node& node, const NodeEdits::Selection& selection, Rewriter& rewriter) {
    const Graph& graph = node.graph();
    std::set<std::string_view> literals;
    for (std::size_t slot = 1; slot < node.input_count(); ++slot) literals.insert(node.input(slot));
    for (const std::string_view literal : literals)
      if (is_private_constant(graph, literal, [&](const Use& use) { return use.node == node; }))
        drop_constant(rewriter, graph, literal);
    rewriter.set_op(node, "Gather");
    rewriter.set_attribute(node, "axis", selection.axis);
    rewriter.set_input(node, 1, add_indices(node, selection, rewriter));
    rewriter.remove_last_inputs(node, 2);
  }

  static void add_clone(const Clone& clone, Rewriter& rewriter) {
    std::vector<std::string> inputs = clone.concat.inputs();
    for (const auto& [part, tensor] : clone.parts) {
      inputs[part] = rewriter.fresh_value(inputs[part]);
      rewriter.add_initializer(inputs[part], tensor);
    }
    const std::string shape = rewriter.fresh_value(clone.concat.output(0));
    rewriter.insert_after(clone.concat, {.op = "Concat",
                                         .inputs = std::move(inputs),
                                         .outputs = {shape},
                                         .attributes = {{"axis", clone.concat.attr_int("axis", 0)}}});
    for (const Use& use : clone.readers) rewriter.set_input(use.node, use.slot, shape);
  }

  std::map<std::string, std::map<std::size_t, std::int64_t>> value_dims() const {
    std::map<std::string, std::map<std::size_t, std::int64_t>> dims;
    for (const auto& [axis, kept] : kept_.all())
      if (!axis.first.is_constant()) dims[axis.first.value][axis.second] = static_cast<std::int64_t>(kept.size());
    return dims;
  }

  Graph& graph_;
  const KeptAxes& kept_;
  const Sizes sizes_;
  ConstantEdits constants_;
  std::vector<std::pair<Node, NodeEdits>> nodes_;
  std::map<std::pair<const void*, std::size_t>, Parts> parts_;  // by reader and slot
  std::vector<Clone> clones_;
};

Status try_plan(Graph& copy, const KeptAxes& kept) {
  OP_TRY(fold_known_sizes(copy));
  copy.model().index();
  return RemovalPlan(copy, kept).make();
}

}  // namespace

Result<bool> remove_units(Model& model, Graph& graph, const KeptAxes& kept, unsigned jobs) {
  if (kept.empty()) return false;
  // Tried on a copy first: what fails must leave no trace, not even sizes that became constants.
  const Model trial = model.clone();
  OP_TRY(try_plan(scope_in(trial, graph), kept));
  OP_TRY(fold_known_sizes(graph));
  model.index();
  RemovalPlan plan(graph, kept);
  OP_TRY(plan.make());
  return plan.apply(jobs);
}

}  // namespace onnxpress
