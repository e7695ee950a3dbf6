// clean-identity: nodes that hand their first input on unchanged go away.
//
//   y = Identity(x); z = Relu(y)     =>   z = Relu(x)
//   t = Conv(x, w); out = Cast<to = 1>(t)   =>   out = Conv(x, w)      (t is float, out is the graph's output)
//
// Identity; Dropout in inference; Reshape to the shape it has; Transpose that keeps the order; Cast to the type it has;
// Pad by nothing; Slice that takes everything; Concat of one value. Readers of the output read the input instead. When
// the output is also a graph output its name must live on: then the node that makes the input makes the output, and the
// other readers of the input follow. That needs the input to be an intermediate value of the same graph.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>

#include "ir/rewriter.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

// What is known about one candidate.
struct Verdict {
  enum Kind { works, unsure, noop } kind = works;  // works: it changes its input, it is no candidate after all
  std::string text = {};                           // of noop: what it does not do; of unsure: why
};
Verdict noop(std::string text) { return {Verdict::noop, std::move(text)}; }
Verdict unsure(std::string text) { return {Verdict::unsure, std::move(text)}; }

using Ints = std::vector<std::int64_t>;

// The integers of a constant input; nullopt when it is not constant.
Result<std::optional<Ints>> constant_ints(const Node& node, std::size_t slot) {
  OP_LET(const std::optional<Tensor> tensor, node.graph().constant(node.input(slot)));
  if (!tensor) return std::nullopt;
  OP_LET(Ints values, to_int64s(tensor->view()));
  return values;
}

Result<Verdict> check_identity(const Node&) { return noop("hands its input on"); }

Result<Verdict> check_concat(const Node& node) {
  return node.input_count() == 1 ? noop("joins a single value") : Verdict{};
}

Result<Verdict> check_dropout(const Node& node) {
  const Graph& graph = node.graph();
  const std::string mask(node.output(1));
  if (!mask.empty() && (graph.is_output(mask) || !graph.uses(mask).empty())) return unsure("its mask is used");
  const std::int64_t opset = graph.model().opset();
  if (opset > 0 && opset < 7 && node.attr_int("is_test", 0) == 0) return unsure("it is in training mode");
  if (node.input(2).empty()) return noop("drops nothing in inference");
  OP_LET(const std::optional<Ints> training, constant_ints(node, 2));
  if (!training) return unsure("its training_mode is not constant");
  return training->size() == 1 && training->front() == 0 ? noop("drops nothing in inference")
                                                         : unsure("it is in training mode");
}

// Whether the constant target shape is the shape the input has, whatever its unknown dims are.
bool reshapes_to_itself(const std::vector<Dim>& from, const Ints& to, bool allow_zero) {
  if (from.size() != to.size()) return false;
  std::size_t inferred = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (to[i] == -1) {
      ++inferred;
      continue;
    }
    const bool copied = to[i] == 0 && !allow_zero;
    if (!copied && from[i].value != to[i]) return false;
    if (from[i].value == 0 && inferred > 0) return false;  // -1 beside an empty dim means nothing
  }
  return inferred <= 1;
}

Result<Verdict> check_reshape(const Node& node) {
  const Graph& graph = node.graph();
  const ValueType from = graph.type(node.input(0));
  const ValueType result = graph.type(node.output(0));
  const auto before = from.static_shape();
  if (before && before == result.static_shape()) return noop("keeps the shape " + dims_text(*before));
  if (from.rank() && result.rank() && from.rank() != result.rank()) return Verdict{};
  std::optional<Ints> to = node.attr_ints("shape");
  if (!node.has_attr("shape")) {
    OP_LET(to, constant_ints(node, 1));
  }
  if (!to || !from.shape) return unsure("its shape is not known");
  if (!reshapes_to_itself(*from.shape, *to, node.attr_int("allowzero", 0) != 0)) return Verdict{};
  return noop("reshapes to the shape it has");
}

Result<Verdict> check_transpose(const Node& node) {
  const Ints perm = node.attr_ints("perm");
  if (perm.empty()) {
    const auto rank = node.graph().type(node.input(0)).rank();
    if (!rank) return unsure("its rank is not known");
    return *rank < 2 ? noop("keeps the order of its axes") : Verdict{};
  }
  for (std::size_t i = 0; i < perm.size(); ++i)
    if (perm[i] != static_cast<std::int64_t>(i)) return Verdict{};
  return noop("keeps the order of its axes");
}

Result<Verdict> check_cast(const Node& node) {
  const auto to = static_cast<DType>(node.attr_int("to", 0));
  const DType from = node.graph().type(node.input(0)).dtype;
  if (from == DType::undefined || !is_known(to)) return unsure("its types are not known");
  return from == to ? noop(fmt::format("casts {} to {}", dtype_name(from), dtype_name(to))) : Verdict{};
}

Result<Verdict> check_pad(const Node& node) {
  std::optional<Ints> pads = node.attr_ints(node.has_attr("paddings") ? "paddings" : "pads");
  if (!node.has_attr("pads") && !node.has_attr("paddings")) {
    OP_LET(pads, constant_ints(node, 1));
  }
  if (!pads) return unsure("its pads are not constant");
  return std::ranges::all_of(*pads, [](std::int64_t pad) { return pad == 0; }) ? noop("pads by nothing") : Verdict{};
}

// Whether start:end:1 is all of an axis. The specification's way to say "to the end" is INT32_MAX or INT64_MAX.
bool is_whole_axis(std::optional<std::int64_t> size, std::int64_t start, std::int64_t end) {
  const bool from_first = start == 0 || (size && start <= -*size);
  const bool to_last = end >= std::numeric_limits<std::int32_t>::max() || (size && end >= *size);
  return from_first && to_last;
}

Result<Verdict> check_slice(const Node& node) {
  Ints starts = node.attr_ints("starts"), ends = node.attr_ints("ends"), axes = node.attr_ints("axes"), steps;
  if (!node.has_attr("starts")) {
    const std::array<Ints*, 4> parts = {&starts, &ends, &axes, &steps};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (node.input(i + 1).empty()) continue;
      OP_LET(std::optional<Ints> values, constant_ints(node, i + 1));
      if (!values) return unsure("its bounds are not constant");
      *parts[i] = std::move(*values);
    }
  }
  if (starts.size() != ends.size() || (!axes.empty() && axes.size() != starts.size()))
    return unsure("its bounds differ in length");
  if (std::ranges::any_of(steps, [](std::int64_t step) { return step != 1; })) return Verdict{};
  const ValueType type = node.graph().type(node.input(0));
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const auto rank = static_cast<std::int64_t>(type.rank().value_or(0));
    std::int64_t axis = axes.empty() ? static_cast<std::int64_t>(i) : axes[i];
    if (axis < 0) axis += rank;
    const auto size = axis >= 0 && axis < rank ? type.dim(static_cast<std::size_t>(axis)) : std::nullopt;
    if (!is_whole_axis(size, starts[i], ends[i])) return Verdict{};
  }
  return noop("takes everything");
}

using Check = Result<Verdict> (*)(const Node&);
Check check_of(const Node& node) {
  static const std::unordered_map<std::string_view, Check> checks = {
      {"Identity", check_identity},   {"Concat", check_concat}, {"Dropout", check_dropout}, {"Reshape", check_reshape},
      {"Transpose", check_transpose}, {"Cast", check_cast},     {"Pad", check_pad},         {"Slice", check_slice}};
  const auto found = node.domain().empty() ? checks.find(node.op()) : checks.end();
  return found == checks.end() ? nullptr : found->second;
}

// Takes the no-ops out of one graph.
class Bypass {
 public:
  Bypass(Graph& graph, PassContext& context) : graph_(graph), context_(context) {
    for (const Node& node : graph.nodes())
      if (check_of(node) != nullptr && !node.input(0).empty() && context.selected(node)) candidates_.push_back(node);
  }

  Result<bool> run() {
    bool changed = false;
    while (true) {
      reasons_.clear();
      OP_LET(const bool by_readers, round(&Bypass::move_readers));
      OP_LET(const bool by_maker, round(&Bypass::move_maker));
      if (!by_readers && !by_maker) break;
      changed = true;
    }
    for (const auto& [node, reason] : reasons_) context_.skipped(node, reason);
    return changed;
  }

 private:
  using Move = std::string (Bypass::*)(const Node&, Rewriter&);  // "" when done, else why not

  Result<bool> round(Move move) {
    Rewriter rewriter(graph_);
    stands_for_.clear();
    reasons_.clear();
    std::vector<Node> rest;
    for (const Node& node : candidates_) {
      OP_LET(const Verdict verdict, check_of(node)(node));
      if (verdict.kind == Verdict::works) continue;
      const std::string reason = verdict.kind == Verdict::noop ? (this->*move)(node, rewriter) : verdict.text;
      if (reason.empty()) {
        context_.done(node, fmt::format("removed: it {}", verdict.text));
        rewriter.erase(node);
      } else {
        rest.push_back(node);
        reasons_.emplace_back(node, reason);
      }
    }
    OP_LET(const bool changed, rewriter.commit());
    candidates_ = std::move(rest);
    return changed;
  }

  // Readers of the output read the input. Edits are pending, so a chain of no-ops is followed by hand.
  std::string move_readers(const Node& node, Rewriter& rewriter) {
    std::string from(node.output(0)), to(node.input(0));
    if (const auto known = stands_for_.find(to); known != stands_for_.end()) to = known->second;
    if (!rewriter.replace_uses(from, to))
      return "its output is handed out or its input's name is hidden in a nested body";
    rewriter.forget_type(from);
    stands_for_.emplace(std::move(from), std::move(to));
    return {};
  }

  // The maker of the input makes the output.
  std::string move_maker(const Node& node, Rewriter& rewriter) {
    const std::string inner(node.input(0)), output(node.output(0));
    if (!graph_.is_output(output)) return "its output is handed out or its input's name is hidden in a nested body";
    const Node maker = graph_.producer(inner);
    if (!maker) return "it joins a graph output to a value that no node of the graph makes";
    if (graph_.is_output(inner) || stands_for_.contains(inner))
      return "its input and its output are both graph outputs";
    if (!rewriter.replace_uses(inner, output)) return "its input is handed out by a nested body";
    for (std::size_t i = 0; i < maker.output_count(); ++i)
      if (maker.output(i) == inner) rewriter.set_output(maker, i, output);
    rewriter.forget_type(inner);
    stands_for_.emplace(inner, output);
    return {};
  }

  Graph& graph_;
  PassContext& context_;
  std::vector<Node> candidates_;
  std::map<std::string, std::string> stands_for_;
  std::vector<std::pair<Node, std::string>> reasons_;
};

class CleanIdentity final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Outcome outcome;
    for (Graph* graph : model.graphs()) {
      OP_LET(const bool changed, Bypass(*graph, context).run());
      outcome.changed |= changed;
    }
    return outcome;
  }
};

}  // namespace

PassInfo info_clean_identity() {
  return describe_pass<CleanIdentity>(
      {.summary = "Removes nodes that hand their input on unchanged",
       .description =
           "y = Identity(x); z = Relu(y)  =>  z = Relu(x)\n\n"
           "Identity, Dropout in inference, Reshape to the same shape, Transpose that keeps the order, Cast to the "
           "same "
           "type, Pad by nothing, Slice that takes everything, Concat of one value. A node that makes a graph output "
           "goes when the node before it can make that output instead. Never touched: nodes whose shapes, pads or "
           "bounds are not known before the model runs, Dropout in training mode or with a mask in use, and nodes "
           "that join a graph output to an input, an initializer or another output.",
       .example = "clean-identity"});
}

}  // namespace onnxpress
