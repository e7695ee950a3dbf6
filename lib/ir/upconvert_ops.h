// How single operators move from one opset to a newer one. Only upconvert() uses it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "ir/rewriters.h"

namespace onnxpress {

// One conversion of a model, seen from the operators.
class OpsetStep {
 public:
  OpsetStep(const Model& model, std::int64_t old_opset, std::int64_t new_opset)
      : from(old_opset), to(new_opset), rewriters(model) {}

  // Is `version` on the way? Then what changed there concerns the node.
  bool crosses(std::int64_t version) const { return from < version && version <= to; }
  // An initializer in the node's scope; equal ones are shared.
  std::string constant(const Node& node, Tensor value, std::string_view suffix);
  std::string constant(const Node& node, const std::vector<std::int64_t>& values, std::string_view suffix);

  const std::int64_t from, to;
  Rewriters rewriters;
  std::vector<std::pair<Node, std::string>> names;  // for nodes without one that need it

 private:
  std::map<std::tuple<const Graph*, DType, Dims, std::string>, std::string> constants_;
};

enum class OpsetChange {
  none,       // newer versions only take more types, or spell out what was so already
  converted,  // or refused, node by node
  unknown,
};
OpsetChange opset_change(std::string_view op);

// Rewrites a node of kind OpsetChange::converted. `what` is set to what was done, or stays empty. Returns why it cannot
// be, or "".
std::string convert_node(OpsetStep& step, const Node& node, std::string& what);

}  // namespace onnxpress
