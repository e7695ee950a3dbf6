// Replaces calls of model-local functions by the nodes of the function.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

struct InlinedCall {
  std::string label, op;  // of the call
  std::size_t nodes = 0;  // that took its place
};

// The model-local function the node calls?
bool is_function_call(const Node& node);

// Why the call cannot be inlined, or "": the function calls itself, or needs another version of an operator than the
// model imports.
std::string inline_refusal(const Node& call);

// Inlines the calls (nodes of the main graph or of bodies, none refused) and the calls inside them, and removes the
// functions that nobody calls any more. Values and nodes of a function get fresh names "call/name". Node, attribute and
// tensor payloads are copied whole: metadata, unknown fields and stored weights survive. Handles of the calls die.
std::vector<InlinedCall> inline_calls(Model& model, const std::vector<Node>& calls);

}  // namespace onnxpress
