// quant-mixed: int8 where a network bears it, finer formats or float where it does not, to meet a budget.
//
//   y = Conv(x, w), z = Conv(y, v)   =>   y = Conv(x, w),  z = DQ(Q(Conv(DQ(Q(y)), DQ(v8))))
//
// The effect of each node is measured with that node alone quantized: its noise n_if (power of the error at the model's
// output over power of the signal) and its bytes c_if in format f. Noises of different nodes nearly add up, so
//   size=      minimise  sum_i n_i,f(i)   subject to  sum_i c_i,f(i) <= budget        (multiple-choice knapsack, exact)
//   max_drop=  the smallest choice that keeps the outputs, searched along the convex hull of (bytes, noise); every
//   min_sqnr=  candidate is quantized and measured, so only the order of the search rests on the sum
// Layers that keep max_drop or min_sqnr from being met climb a ladder: first other ranges for their activations, which
// cost nothing, then what the knapsack buys: finer formats, float32; of the last, 16-bit activations where they do.
// Sources: Dong et al., "HAWQ-V2" (arXiv 1911.03852: sensitivity and a Pareto frontier of bit widths); Sinha and
// Zoltners, "The Multiple-Choice Knapsack Problem" (Operations Research 27, 1979).
#include "quant/mixed.h"

#include <fmt/format.h>

#include <set>

#include "base/file.h"
#include "base/text.h"
#include "pass/pass.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

constexpr double kDefaultDrop = 1;
constexpr std::uint64_t kLargestTable = std::uint64_t{256} << 20;

struct Options {
  std::optional<double> size, max_drop, min_sqnr;
  std::string sensitivity;
  bool rescue = true;
  bool per_channel = true;
  Target target = Target::automatic;
};

class QuantMixed final : public Pass {
 public:
  explicit QuantMixed(Options options) : options_(std::move(options)) {}

  static void describe(Schema<Options>& schema) {
    schema
        .add("size", &Options::size,
             "bytes of all weights afterwards; up to 1 it is the share of what they are before (0.3)", {0, {}})
        .add("max_drop", &Options::max_drop,
             "percent of the calibration samples that may change their top-1 class; of a model without class scores: "
             "noise power in percent of the signal power, worst output. 1 when no budget is given",
             {0, 100})
        .add("min_sqnr", &Options::min_sqnr,
             "dB between the outputs of the float and the quantized model, worst output")
        .add("sensitivity", &Options::sensitivity,
             "file with the table of `onnxpress sensitivity -o`; measured here when it is not given")
        .add("rescue", &Options::rescue,
             "before layers stay float, try other ranges and 16-bit activations (which runtimes compute in float)")
        .add("per_channel", &Options::per_channel, "as in quant-static")
        .add("target", &Options::target, target_choices(), "as in quant-static");
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    OP_LET(const MixedBudget budget, budget_for(model));
    StaticSettings settings;
    settings.per_channel = options_.per_channel;
    settings.target = options_.target;
    Meter meter(model, context, settings);
    OP_LET(const SensitivityTable table, table_of(model, meter, settings, context));
    if (table.nodes.empty()) {  // quant-static says why
      OP_LET(const bool changed, quantize_static(model, context, settings));
      return Outcome{changed};
    }
    OP_LET(const MixedChoice choice, choose_mixed(meter, table, budget, options_.rescue));
    OP_TRY(journal(model, meter, choice, budget, context));

    settings.known = &meter.ranges();
    PassContext silent = meter.scratch();
    OP_LET(const bool changed, quantize_recipe(model, silent, settings, choice.recipe));
    return Outcome{changed};
  }

 private:
  Result<MixedBudget> budget_for(const Model& model) const {
    const int given = options_.size.has_value() + options_.max_drop.has_value() + options_.min_sqnr.has_value();
    if (given > 1) return fail(Code::usage, "size, max_drop and min_sqnr exclude each other");
    MixedBudget budget;
    if (options_.size) {
      const double bytes =
          *options_.size <= 1 ? *options_.size * static_cast<double>(weight_bytes(model)) : *options_.size;
      budget.bytes = static_cast<std::uint64_t>(std::min(bytes, 0x1p62));
    }
    budget.min_sqnr = options_.min_sqnr;
    budget.max_drop = given == 0 ? std::optional(kDefaultDrop) : options_.max_drop;
    return budget;
  }

  Result<SensitivityTable> table_of(const Model& model, Meter& meter, const StaticSettings& settings,
                                    PassContext& context) const {
    SensitivityRun run;
    OP_LET(run.key.model, model.fingerprint());
    run.key.settings = settings_text(settings);
    if (options_.sensitivity.empty()) return measure_sensitivity(model, meter, run);
    OP_LET(const std::string text, read_text_file(options_.sensitivity, kLargestTable));
    auto table = parse_sensitivity(text);
    if (!table) return rethrow(std::move(table).error(), options_.sensitivity);
    if (table->key.model != run.key.model)
      return fail(
          Code::bad_input,
          "{}: measured for another model. Give `onnxpress sensitivity` the same file, and behind -p the passes "
          "that stand before quant-mixed",
          options_.sensitivity);
    if (table->key.settings != run.key.settings)
      return fail(Code::bad_input, "{}: measured with {}, this is {}", options_.sensitivity,
                  escape_control(table->key.settings), run.key.settings);
    context.journal.note(fmt::format("sensitivity measured on {}", escape_control(table->samples)));
    return table;
  }

  // What quant-static says of each node, with the reason for its format. Written before the model changes: nodes
  // without a name are called after their outputs.
  static Status journal(const Model& model, Meter& meter, const MixedChoice& choice, const MixedBudget& budget,
                        PassContext& context) {
    PassContext trial = meter.scratch();
    OP_TRY(meter.apply(choice.recipe, trial));
    summarize(choice, budget, context);
    for (const std::string& warning : trial.journal.warnings()) context.journal.warning(warning);
    std::map<std::string, const JournalEntry*> said;
    for (const JournalEntry& entry : trial.journal.entries())
      if (!entry.node.empty()) said[entry.node] = &entry;
    std::map<std::string, const NodeSensitivity*> rows;
    for (const NodeSensitivity& row : choice.table.nodes)
      for (const std::string& label : row.labels())
        if (row.kernel) rows[label] = &row;
    for (const Graph* graph : model.graphs()) {
      for (const Node& node : graph->nodes()) {
        const auto row = rows.find(node.label());
        const auto entry = said.find(node.label());
        const std::string why = row == rows.end() ? "" : explain(choice, *row->second);
        if (!why.empty() && choice.recipe.of(node.label()) == NodeFormat::float32)
          context.skipped(node, why);
        else if (entry != said.end() && entry->second->done)
          context.done(node, why.empty() ? entry->second->text : why + ". " + entry->second->text);
        else if (entry != said.end())
          context.skipped(node, entry->second->text);
      }
    }
    return {};
  }

  static void summarize(const MixedChoice& choice, const MixedBudget& budget, PassContext& context) {
    std::map<NodeFormat, std::size_t> counts;
    for (const NodeSensitivity& row : choice.table.nodes)
      if (row.kernel) ++counts[choice.recipe.of(row.node)];
    std::vector<std::string> parts;
    for (const auto& [format, count] : counts) parts.push_back(fmt::format("{} {}", count, node_format_name(format)));
    const std::uint64_t before = choice.table.float_bytes;
    std::string text = fmt::format(
        "{}: {}; weights {} -> {}; on the calibration samples SQNR {:.1f} dB (predicted {:.1f})", budget.text(),
        join(parts, ", "), human_bytes(before), human_bytes(before + static_cast<std::uint64_t>(choice.effect.bytes)),
        choice.effect.error.sqnr_db(), OutputError{.noise = choice.predicted_noise}.sqnr_db());
    if (choice.effect.error.agreement)
      text += fmt::format(", {:.2f} % change their class", 100 - *choice.effect.error.agreement);
    text += fmt::format("; {} recipes tried", choice.trials);
    context.journal.note(text);
    if (!choice.met) context.journal.warning(budget.text() + " cannot be reached; this is as near as it gets");
  }

  Options options_;
};

}  // namespace

PassInfo info_quant_mixed() {
  return describe_pass<QuantMixed, Options>(
      {.summary = "Static quantization that chooses a format for each layer, to meet a size or an accuracy budget",
       .description =
           "y = Conv(x, w)  =>  the int8 form of quant-static, or the node as it is: layer by layer, what the budget "
           "asks for\n\n"
           "Every layer is first quantized alone and the error at the model's outputs is measured over the calibration "
           "samples (or taken from the file of `onnxpress sensitivity`). With size= the layers that stay finer are "
           "those that buy the most accuracy, by an exact knapsack. With max_drop= or min_sqnr= the result is the "
           "smallest model found that keeps them on the calibration samples; each candidate is measured. The report "
           "says for each layer what it lost and what the other formats would have cost. What the outputs are worth "
           "on labelled data is not seen here: that is the gate --max-drop of the command. Run fold-batchnorm before "
           "it.",
       .example = "fold-batchnorm,quant-mixed{max_drop=0.5}",
       .references = {"Dong et al., HAWQ-V2, arXiv 1911.03852",
                      "Sinha and Zoltners, The Multiple-Choice Knapsack Problem, Operations Research 27 (1979)",
                      "Jacob et al., arXiv 1712.05877"},
       .idempotent = false,
       .lossy = true,
       .needs_data = true,
       .quantizes = true});
}

}  // namespace onnxpress
