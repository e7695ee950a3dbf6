#include "ir/inline.h"

#include <fmt/format.h>
#include <onnx/defs/schema.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cassert>
#include <unordered_map>
#include <unordered_set>

#include "ir/index.h"
#include "ir/rewriter.h"

namespace onnxpress {
namespace {

using Nodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;
using Attributes = std::unordered_map<std::string, const onnx::AttributeProto*>;

const onnx::FunctionProto* function_of(const onnx::ModelProto& model, const onnx::NodeProto& node) {
  for (const auto& function : model.functions())
    if (function.name() == node.op_type() && plain_domain(function.domain()) == plain_domain(node.domain()) &&
        function.overload() == node.overload())
      return &function;
  return nullptr;
}

// Every node of the list and of the bodies in it.
template <class Fn>
void for_each_node(const Nodes& nodes, const Fn& fn) {
  for (const auto& node : nodes) {
    fn(node);
    for (const auto& attribute : node.attribute()) {
      if (attribute.has_g()) for_each_node(attribute.g().node(), fn);
      for (const auto& body : attribute.graphs()) for_each_node(body.node(), fn);
    }
  }
}

// Does the operator mean the same at both versions of the default domain?
bool is_same_operator(const onnx::NodeProto& node, std::int64_t a, std::int64_t b) {
  const auto* one = onnx::OpSchemaRegistry::Schema(node.op_type(), static_cast<int>(a), "");
  const auto* other = onnx::OpSchemaRegistry::Schema(node.op_type(), static_cast<int>(b), "");
  return one != nullptr && one == other;
}

std::string refusal(const Model& model, const onnx::FunctionProto& function,
                    std::vector<const onnx::FunctionProto*>& callers) {
  if (std::ranges::contains(callers, &function)) return fmt::format("function '{}' calls itself", function.name());
  for (const auto& import : function.opset_import()) {
    const std::int64_t ours = model.opset(import.domain());
    if (ours == 0 || ours == import.version()) continue;
    std::string other;
    for_each_node(function.node(), [&](const onnx::NodeProto& node) {
      const bool same = plain_domain(node.domain()) != plain_domain(import.domain()) ||
                        (plain_domain(import.domain()).empty() && is_same_operator(node, import.version(), ours));
      if (!same) other = node.op_type();
    });
    if (!other.empty())
      return fmt::format("function '{}' has {} of opset {}, the model imports {}", function.name(), other,
                         import.version(), ours);
  }
  callers.push_back(&function);
  std::string found;
  for_each_node(function.node(), [&](const onnx::NodeProto& node) {
    const auto* callee = function_of(model.proto(), node);
    if (callee != nullptr && found.empty()) found = refusal(model, *callee, callers);
  });
  callers.pop_back();
  return found;
}

// One call being replaced: how names inside the function are spelled outside.
class Expansion {
 public:
  Expansion(Rewriter& names, const onnx::FunctionProto& function, const onnx::NodeProto& call)
      : names_(names), prefix_(call.name().empty() ? function.name() : call.name()) {
    for (int i = 0; i < function.input_size(); ++i)
      values_[function.input(i)] = i < call.input_size() ? call.input(i) : "";
    std::unordered_set<std::string> produced;
    for (const auto& node : function.node()) produced.insert(node.output().begin(), node.output().end());
    for (int i = 0; i < function.output_size(); ++i) {
      if (i >= call.output_size() || call.output(i).empty()) continue;  // nobody takes it: a fresh name like the rest
      if (produced.contains(function.output(i))) {
        values_[function.output(i)] = call.output(i);
      } else {
        passed_on_.emplace_back(function.output(i), call.output(i));
      }
    }
    for (const auto& attribute : function.attribute_proto()) attributes_[attribute.name()] = &attribute;
    for (const auto& attribute : call.attribute()) attributes_[attribute.name()] = &attribute;
  }

  std::vector<onnx::NodeProto> run(const onnx::FunctionProto& function) {
    std::vector<onnx::NodeProto> out;
    for (const auto& node : function.node()) {
      out.push_back(node);
      rename(out.back());
    }
    for (const auto& [from, to] : passed_on_) {
      onnx::NodeProto& node = out.emplace_back();
      node.set_op_type("Identity");
      node.add_input(values_[from]);
      node.add_output(to);
      node.set_name(names_.fresh_node(prefix_ + "/Identity"));
    }
    return out;
  }

 private:
  std::string fresh(const std::string& name) { return names_.fresh_value(fmt::format("{}/{}", prefix_, name)); }

  // A value that is read: one of the function, or (in a body) one that an outer scope defines.
  void use(std::string& name) {
    const auto found = values_.find(name);
    if (found != values_.end()) name = found->second;
  }
  void define(std::string& name) {
    if (name.empty()) return;
    const auto [place, added] = values_.try_emplace(name);
    if (added) place->second = fresh(name);
    name = place->second;
  }

  void rename(onnx::NodeProto& node) {
    for (auto& input : *node.mutable_input()) use(input);
    for (auto& output : *node.mutable_output()) define(output);
    const std::string& name = node.name().empty() ? node.op_type() : node.name();
    node.set_name(names_.fresh_node(fmt::format("{}/{}", prefix_, name)));
    auto& attributes = *node.mutable_attribute();
    for (int i = attributes.size() - 1; i >= 0; --i) {
      auto& attribute = attributes[i];
      if (!attribute.ref_attr_name().empty()) {
        const auto found = attributes_.find(attribute.ref_attr_name());
        if (found == attributes_.end()) {
          attributes.DeleteSubrange(i, 1);  // the call leaves it out, and so does the node
          continue;
        }
        const std::string key = attribute.name();
        attribute = *found->second;
        attribute.set_name(key);
        continue;  // a graph among the call's attributes is spelled for the outside already
      }
      if (attribute.has_g()) rename(*attribute.mutable_g());
      for (auto& body : *attribute.mutable_graphs()) rename(body);
    }
  }

  // A body: its own names hide those outside only here.
  void rename(onnx::GraphProto& graph) {
    const auto outside = values_;
    std::unordered_set<std::string> inputs;  // an initializer may be one of them too
    const auto own = [&](std::string& name) { name = values_[name] = fresh(name); };
    for (auto& input : *graph.mutable_input()) {
      inputs.insert(input.name());
      own(*input.mutable_name());
    }
    for (auto& tensor : *graph.mutable_initializer()) {
      if (inputs.contains(tensor.name())) {
        use(*tensor.mutable_name());
      } else {
        own(*tensor.mutable_name());
      }
    }
    for (auto& sparse : *graph.mutable_sparse_initializer()) own(*sparse.mutable_values()->mutable_name());
    for (const auto& node : graph.node())
      for (const auto& output : node.output())
        if (!output.empty()) values_[output] = fresh(output);
    for (auto& node : *graph.mutable_node()) rename(node);
    for (auto& output : *graph.mutable_output()) use(*output.mutable_name());
    for (auto& info : *graph.mutable_value_info()) use(*info.mutable_name());
    values_ = outside;
  }

  Rewriter& names_;
  const std::string prefix_;
  std::unordered_map<std::string, std::string> values_;
  std::vector<std::pair<std::string, std::string>> passed_on_;  // outputs that are inputs
  Attributes attributes_;
};

class Inliner {
 public:
  Inliner(Model& model, Rewriter& names) : model_(model), names_(names) {}

  // Replaces the calls in the list and in the bodies in it; `chosen` null: all of them.
  void expand(Nodes& nodes, const std::unordered_set<const onnx::NodeProto*>* chosen) {
    std::vector<onnx::NodeProto*> old(static_cast<std::size_t>(nodes.size()));
    if (!old.empty()) nodes.ExtractSubrange(0, nodes.size(), old.data());
    for (onnx::NodeProto* node : old) {
      for (auto& attribute : *node->mutable_attribute()) {
        if (attribute.has_g()) expand(*attribute.mutable_g()->mutable_node(), chosen);
        for (auto& body : *attribute.mutable_graphs()) expand(*body.mutable_node(), chosen);
      }
      const auto* function = function_of(model_.proto(), *node);
      if (function == nullptr || (chosen != nullptr && !chosen->contains(node))) {
        nodes.AddAllocated(node);  // the same address: handles stay
        continue;
      }
      Nodes inside;
      for (auto& copy : Expansion(names_, *function, *node).run(*function)) *inside.Add() = std::move(copy);
      import_opsets(*function);
      expand(inside, nullptr);
      if (chosen != nullptr)
        done.push_back({Node(node, nullptr).label(), node->op_type(), static_cast<std::size_t>(inside.size())});
      for (auto& copy : inside) *nodes.Add() = std::move(copy);
      delete node;
    }
  }

  std::vector<InlinedCall> done;

 private:
  void import_opsets(const onnx::FunctionProto& function) {
    for (const auto& import : function.opset_import())
      if (model_.opset(import.domain()) == 0) *model_.proto().add_opset_import() = import;
  }

  Model& model_;
  Rewriter& names_;
};

// Functions that no graph and no other function that stays can reach.
void drop_unreachable(onnx::ModelProto& model) {
  std::unordered_set<const onnx::FunctionProto*> reached;
  const auto visit = [&](const auto& self, const Nodes& nodes) -> void {
    for_each_node(nodes, [&](const onnx::NodeProto& node) {
      const auto* function = function_of(model, node);
      if (function != nullptr && reached.insert(function).second) self(self, function->node());
    });
  };
  visit(visit, model.graph().node());
  auto& functions = *model.mutable_functions();
  for (int i = functions.size() - 1; i >= 0; --i)
    if (!reached.contains(&functions[i])) functions.DeleteSubrange(i, 1);
}

}  // namespace

bool is_function_call(const Node& node) { return function_of(node.graph().model().proto(), *node.proto()) != nullptr; }

std::string inline_refusal(const Node& call) {
  const Model& model = call.graph().model();
  std::vector<const onnx::FunctionProto*> callers;
  return refusal(model, *function_of(model.proto(), *call.proto()), callers);
}

std::vector<InlinedCall> inline_calls(Model& model, const std::vector<Node>& calls) {
  if (calls.empty()) return {};
  std::unordered_set<const onnx::NodeProto*> chosen;
  for (const Node& call : calls) chosen.insert(call.proto());
  Rewriter names(model.main());
  names.fresh_value("call");  // fills the table of names while the graphs are as they were
  names.fresh_node("call");
  Inliner inliner(model, names);
  inliner.expand(*model.proto().mutable_graph()->mutable_node(), &chosen);
  drop_unreachable(model.proto());
  model.invalidate();
  return std::move(inliner.done);
}

}  // namespace onnxpress
