// A registry of small passes, so that the framework is tested without the real ones.
#pragma once

#include <string>
#include <vector>

#include "ir/rewriter.h"
#include "pass/pass.h"
#include "pass/pipeline.h"

namespace onnxpress::testing {

enum class Scope { local, global };

// Every type of option. It does nothing.
struct EveryOption {
  double sparsity = 0.5;
  std::int64_t block = 4;
  bool exact = false;
  Scope scope = Scope::local;
  std::string note;
  std::vector<std::string> families = {"conv", "dense"};
  std::vector<std::int64_t> axes;
  std::optional<std::int64_t> rank;
  std::optional<double> ratio;
};
class ToyOptions : public Pass {
 public:
  explicit ToyOptions(EveryOption options) : options_(std::move(options)) {}
  static void describe(Schema<EveryOption>& schema) {
    schema.add("sparsity", &EveryOption::sparsity, "part of the weights set to zero", {.min = 0, .max = 1})
        .add("block", &EveryOption::block, "weights per block", {.min = 1, .max = {}})
        .add("exact", &EveryOption::exact, "no rounding")
        .add("scope", &EveryOption::scope, {{"local", Scope::local}, {"global", Scope::global}}, "what is ranked")
        .add("note", &EveryOption::note, "any text")
        .add("families", &EveryOption::families, "op families")
        .add("axes", &EveryOption::axes, "axes", {.min = -8, .max = 7})
        .add("rank", &EveryOption::rank, "kept rank", {.min = {}, .max = 1024})
        .add("ratio", &EveryOption::ratio, "kept part");
  }
  Result<Outcome> run(Model&, PassContext&) const override { return Outcome{}; }

 private:
  EveryOption options_;
};

// Relu -> Sigmoid, in place.
class ToyRelu : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Rewriter rewriter(model.main());
    for (const Node& node : model.main().nodes()) {
      if (!node.is("Relu") || !context.selected(node)) continue;
      context.done(node, "made a Sigmoid");
      rewriter.set_op(node, "Sigmoid");
    }
    return rewriter.commit().transform([](bool changed) { return Outcome{changed}; });
  }
};

struct CountOptions {
  std::int64_t until = 3;
};
// Counts metadata "count" up by one until it is `until`.
class ToyCount : public Pass {
 public:
  explicit ToyCount(CountOptions options) : options_(options) {}
  static void describe(Schema<CountOptions>& schema) { schema.add("until", &CountOptions::until, "where to stop"); }
  Result<Outcome> run(Model& model, PassContext& context) const override {
    const std::size_t count = model.metadata("count").size();
    context.skipped(model.main().nodes().front(), "never touched");
    if (static_cast<std::int64_t>(count) >= options_.until) return Outcome{false};
    model.set_metadata("count", std::string(count + 1, 'x'));
    return Outcome{true};
  }

 private:
  CountOptions options_;
};

enum class Fault { error, lie, hide, invalid };
struct FaultOptions {
  Fault fault = Fault::error;
};
// Everything a pass must not do.
class ToyFault : public Pass {
 public:
  explicit ToyFault(FaultOptions options) : options_(options) {}
  static void describe(Schema<FaultOptions>& schema) {
    schema.add("fault", &FaultOptions::fault,
               {{"error", Fault::error}, {"lie", Fault::lie}, {"hide", Fault::hide}, {"invalid", Fault::invalid}}, "");
  }
  Result<Outcome> run(Model& model, PassContext&) const override {
    if (options_.fault == Fault::error) return fail(Code::bad_input, "node c: bad pads");
    if (options_.fault == Fault::lie) return Outcome{true};
    if (options_.fault == Fault::hide) {
      model.set_metadata("hidden", "yes");
      return Outcome{false};
    }
    Rewriter rewriter(model.main());
    rewriter.set_op(model.main().nodes().front(), "NoSuchOp");
    return rewriter.commit().transform([](bool changed) { return Outcome{changed}; });
  }

 private:
  FaultOptions options_;
};

inline const std::vector<PassInfo>& toy_passes() {
  static const std::vector<PassInfo> passes = {
      describe_pass<ToyCount, CountOptions>({.name = "toy-count",
                                             .summary = "counts up",
                                             .description = "",
                                             .example = "",
                                             .references = {},
                                             .idempotent = false}),
      [] {
        PassInfo info;
        info.name = "toy-data";
        info.summary = "wants samples";
        info.needs_data = true;
        info.lossy = true;
        return describe_pass<ToyRelu>(std::move(info));
      }(),
      describe_pass<ToyFault, FaultOptions>(
          {.name = "toy-fault", .summary = "misbehaves", .description = "", .example = "", .references = {}}),
      describe_pass<ToyOptions, EveryOption>({.name = "toy-options",
                                              .summary = "has every type of option",
                                              .description = "First line.\n  Relu(x) => Relu(x)\n\nSecond paragraph.",
                                              .example = "toy-options{sparsity=0.7 scope=global}",
                                              .references = {"A Paper (arXiv 0000.00000)"}}),
      describe_pass<ToyRelu>({.name = "toy-relu",
                              .summary = "Relu to Sigmoid",
                              .description = "",
                              .example = "toy-relu",
                              .references = {}}),
  };
  return passes;
}

}  // namespace onnxpress::testing
