#include "depend/constant_edits.h"

#include <algorithm>

#include "base/parallel.h"
#include "ir/edit.h"

namespace onnxpress {
namespace {

Result<Tensor> read(const Graph& scope, const std::string& value) {
  OP_LET(std::optional<Tensor> tensor, scope.constant(value));
  if (!tensor) return fail(Code::unsupported, "'{}' is no constant", value);
  return std::move(*tensor);
}

}  // namespace

void ConstantEdits::set(const Node& reader, std::size_t slot, std::string key, Make make) {
  const auto [place, fresh] = edits_.insert_or_assign({reader.proto(), slot}, Edit{std::move(key), std::move(make)});
  if (fresh) order_.push_back({reader, slot, false});
}

// Whether nobody needs the old value any more.
bool ConstantEdits::replaceable(const Constant& constant) const {
  if (constant.scope->is_output(constant.value)) return false;
  return std::ranges::all_of(constant.scope->uses(constant.value),
                             [&](const Use& use) { return use.node && edits_.contains({use.node.proto(), use.slot}); });
}

std::vector<ConstantEdits::Constant> ConstantEdits::collect() const {
  std::vector<Constant> constants;
  std::map<std::pair<const Graph*, std::string>, std::size_t> known;
  for (const Use& use : order_) {
    const std::string value(use.node.input(use.slot));
    Graph* const scope = graph_.scope_of(value);
    const auto [place, fresh] = known.try_emplace({scope, value}, constants.size());
    if (fresh) constants.push_back({scope, value, {}});
    std::vector<Version>& versions = constants[place->second].versions;
    const Edit& edit = edits_.at({use.node.proto(), use.slot});
    auto version = std::ranges::find(versions, edit.key, &Version::key);
    if (version == versions.end()) version = versions.insert(version, Version{edit.key, edit.make, {}, false});
    version->readers.push_back(use);
  }
  for (Constant& constant : constants)
    if (constant.scope != nullptr && replaceable(constant)) constant.versions.front().in_place = true;
  return constants;
}

void ConstantEdits::store(const Step& step, Tensor value, Rewriters& rewriters) const {
  const auto& [scope, name, versions] = *step.constant;
  if (!step.version->in_place) {
    Rewriter& rewriter = rewriters.of(graph_);
    const std::string fresh = rewriter.fresh_value(name);
    rewriter.add_initializer(fresh, std::move(value));
    for (const Use& use : step.version->readers) rewriter.set_input(use.node, use.slot, fresh);
    return;
  }
  Rewriter& rewriter = rewriters.of(*scope);
  if (const Initializer initializer = scope->initializer(name)) {
    rewriter.set_initializer(initializer, std::move(value));
  } else {  // a Constant node: an initializer takes its name
    drop_constant(rewriter, *scope, name);
    rewriter.forget_type(name);
    rewriter.add_initializer(name, std::move(value));
  }
}

Status ConstantEdits::apply(Rewriters& rewriters, unsigned jobs) const {
  const std::vector<Constant> constants = collect();
  std::vector<Step> steps;
  for (const Constant& constant : constants) {
    if (constant.scope == nullptr || constant.scope->proto() == nullptr || graph_.proto() == nullptr)
      return fail(Code::unsupported, "node {}: constants of a function cannot be cut; inline functions first",
                  constant.versions.front().readers.front().node.label());
    for (const Version& version : constant.versions) steps.push_back({&constant, &version});
  }
  return execute_and_commit<Tensor>(
      steps.size(), jobs,
      [&](std::size_t i) -> Result<Tensor> {
        auto made = read(*steps[i].constant->scope, steps[i].constant->value).and_then(steps[i].version->make);
        if (!made) return rethrow(std::move(made).error(), "node " + steps[i].version->readers.front().node.label());
        return made;
      },
      [&](std::size_t i, Tensor value) -> Status {
        store(steps[i], std::move(value), rewriters);
        return {};
      },
      "cut");
}

}  // namespace onnxpress
