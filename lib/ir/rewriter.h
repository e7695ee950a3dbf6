// The only mutator of a graph. Edits are buffered and applied in one compaction by commit(), which keeps the node
// order topological as long as every inserted node stands after its producers and before its consumers.
// Reads through Graph see the state before the edits until commit().
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

struct NodeSpec {
  std::string op;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<std::pair<std::string, AttributeValue>> attributes = {};
  std::string domain = {};
  std::string name = {};
};

class Rewriter {
 public:
  explicit Rewriter(Graph& graph);
  Rewriter(const Rewriter&) = delete;
  Rewriter& operator=(const Rewriter&) = delete;
  ~Rewriter();  // edits not committed are dropped

  // Several insertions at one place keep the order of the calls. The handle can be used as an anchor or edited.
  Node insert_before(Node anchor, NodeSpec spec);
  Node insert_after(Node anchor, NodeSpec spec);
  Node append(NodeSpec spec);   // after the last node
  Node prepend(NodeSpec spec);  // before the first node
  void erase(Node node);

  void set_input(Node node, std::size_t slot, std::string_view value);
  void set_output(Node node, std::size_t slot, std::string_view value);
  void remove_last_inputs(Node node, std::size_t keep);  // keeps the first `keep` inputs
  void set_attribute(Node node, std::string_view key, AttributeValue value);
  void remove_attribute(Node node, std::string_view key);
  // Turns the node into another op in place: inputs, outputs and name stay, attributes are cleared.
  void set_op(Node node, std::string_view op, std::string_view domain = "");

  // Every reader of `from` in this scope and in nested bodies reads `to` instead. Refused (false, nothing done)
  // when `from` is an output of this scope, is handed out by a nested body, or `to` is shadowed in a nested body.
  [[nodiscard]] bool replace_uses(std::string_view from, std::string_view to);

  // Initializers of this scope. Functions have none (asserts). The payload is stored by the call itself, beyond the
  // store's budget on disk; the graph sees it after commit().
  void add_initializer(std::string_view name, Tensor value);
  void set_initializer(Initializer initializer, Tensor value);
  void remove_initializer(Initializer initializer);
  // A graph input (one that shadows a removed or constant initializer).
  void remove_input(std::string_view name);
  // Drops the declared type of an intermediate value that no longer holds.
  void forget_type(std::string_view value);

  // A value name that no scope of the model uses: "base", "base_1", "base_2", ... Reserved by the call.
  std::string fresh_value(std::string_view base);
  // The same for node names.
  std::string fresh_node(std::string_view base);

  bool pending() const { return changed_; }
  // Applies the edits. True when the model changed. Errors come from writing tensors (spilling to disk).
  Result<bool> commit();

 private:
  using NodeList = std::vector<onnx::NodeProto*>;
  Node make(NodeSpec spec);
  void edit(std::function<Status()> change);
  std::shared_ptr<onnx::TensorProto> prepare(const onnx::TensorProto* old, Tensor value);
  void insert_at(Node anchor, bool after, Node node);
  void compact();

  Graph& graph_;
  bool changed_ = false;
  Status status_;  // the first error of storing a payload; commit() returns it
  std::vector<std::function<Status()>> edits_;  // applied in order by commit()
  std::unordered_map<std::string, std::string> replaced_;  // from -> to of replace_uses(), chains resolved
  NodeList front_, back_;
  std::unordered_map<onnx::NodeProto*, NodeList> before_, after_;
  std::unordered_map<onnx::NodeProto*, std::unique_ptr<onnx::NodeProto>> made_;  // owned until commit()
  std::unordered_set<onnx::NodeProto*> erased_;
};

}  // namespace onnxpress
