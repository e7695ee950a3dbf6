#include "ir/upconvert.h"

#include <fmt/format.h>
#include <onnx/defs/schema.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <array>

#include "ir/upconvert_ops.h"

namespace onnxpress {
namespace {

// What an operator says of itself at two opsets.
struct Versions {
  int from = 0, to = 0;  // since_version; 0 when there is no such operator
  bool deprecated = false;
};

Versions versions_of(const Node& node, std::int64_t from, std::int64_t to) {
  const std::string op(node.op());
  const auto* before = onnx::OpSchemaRegistry::Schema(op, static_cast<int>(from), "");
  const auto* after = onnx::OpSchemaRegistry::Schema(op, static_cast<int>(to), "");
  if (before == nullptr || after == nullptr) return {};
  return {before->SinceVersion(), after->SinceVersion(), after->Deprecated()};
}

// Why the node cannot move, or ""; `what` says what was done to it, if anything.
std::string convert(OpsetStep& step, const Node& node, std::string& what) {
  const Versions versions = versions_of(node, step.from, step.to);
  if (versions.from == 0) return fmt::format("opset {} has no such operator", step.from);
  if (versions.from == versions.to && !versions.deprecated) return {};
  switch (opset_change(node.op())) {
    case OpsetChange::none:
      return {};
    case OpsetChange::converted:
      return convert_node(step, node, what);
    default:
      return fmt::format("it changed from version {} to {} and how to convert it is not known", versions.from,
                         versions.to);
  }
}

Status refusal(const UpconvertLog& log, std::int64_t from, std::int64_t to) {
  constexpr std::size_t kNamed = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(kNamed, log.refused.size()); ++i)
    text += fmt::format("{}node '{}' ({}): {}", i == 0 ? "" : "; ", log.refused[i].first.label(),
                        log.refused[i].first.op(), log.refused[i].second);
  if (log.refused.size() > kNamed) text += fmt::format("; and {} more", log.refused.size() - kNamed);
  return fail(Code::unsupported, "opset {} cannot be converted to {}: {}", from, to, text);
}

}  // namespace

std::int64_t ir_version_for(std::int64_t opset) {
  // By opset from 7 on (onnx/docs/Versioning.md).
  constexpr std::array<std::int64_t, 15> versions = {3, 3, 4, 5, 6, 7, 7, 7, 8, 8, 8, 8, 9, 9, 10};
  if (opset < kOldestOpset) return 3;
  return versions[static_cast<std::size_t>(std::min(opset, kNewestOpset) - kOldestOpset)];
}

Result<bool> upconvert(Model& model, std::int64_t opset, UpconvertLog* log) {
  const std::int64_t from = model.opset();
  if (from >= opset || from == 0) return false;
  if (from < kOldestOpset || opset > kNewestOpset)
    return fail(Code::unsupported, "opset {} cannot be converted to {}: only {} to {} are known", from, opset,
                kOldestOpset, kNewestOpset);
  OpsetStep step(model, from, opset);
  UpconvertLog own;
  for (const Graph* graph : model.graphs()) {
    if (graph->kind() == Graph::Kind::function)
      return fail(Code::unsupported, "opset {} cannot be converted to {}: the model has functions (clean-functions)",
                  from, opset);
    for (const Node& node : graph->nodes()) {
      if (!node.domain().empty()) continue;
      std::string what;
      std::string why = convert(step, node, what);
      if (!why.empty()) {
        own.refused.emplace_back(node, std::move(why));
      } else if (!what.empty()) {
        own.converted.emplace_back(node, std::move(what));
      }
    }
  }
  const bool refused = !own.refused.empty();
  Status status = refused ? refusal(own, from, opset) : Status();
  if (log != nullptr) *log = std::move(own);
  OP_TRY(std::move(status));
  OP_TRY(step.rewriters.commit());
  for (const auto& [node, name] : step.names) node.proto()->set_name(name);
  model.set_opset("", opset);
  if (model.ir_version() < ir_version_for(opset)) model.set_ir_version(ir_version_for(opset));
  return true;
}

}  // namespace onnxpress
