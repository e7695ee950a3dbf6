#include "report/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/file.h"
#include "base/text.h"
#include "report/cells.h"

namespace onnxpress {
namespace {

std::string score_summary(const ScorePair& score) {
  if (score.metric == Metric::perplexity)
    return fmt::format("perplexity {} -> {} ({} %)", fixed_text(score.before, 4), fixed_text(score.after, 4),
                       signed_text(score.drop.value_or(0), 2));
  if (score.metric == Metric::agreement) return fmt::format("agreement {} %", fixed_text(score.after, 2));
  return fmt::format("{} {} -> {} ({})", score.metric == Metric::top1 ? "top-1" : "top-5", fixed_text(score.before, 2),
                     fixed_text(score.after, 2), signed_text(score.after - score.before, 2));
}

std::string score_summary(const Score& score) {
  if (score.metric == Metric::perplexity) return "perplexity " + fixed_text(score.value, 4);
  return fmt::format("{} {} %", score.metric == Metric::top1 ? "top-1" : "top-5", fixed_text(score.value, 2));
}

void add_accuracy(const Report& report, std::vector<std::string>& parts) {
  if (report.evaluation && !report.evaluation->scores.empty())
    parts.push_back(score_summary(report.evaluation->scores.front()));
  if (!report.comparison) return;
  if (const ScorePair* headline = report.comparison->headline()) parts.push_back(score_summary(*headline));
  if (const auto worst = report.comparison->worst_sqnr()) parts.push_back("SQNR " + decibel_text(*worst) + " dB");
}

// value <= limit or value >= limit; NaN fails either way.
Gate gate(std::string name, double limit, double value, bool at_most) {
  const bool measured = !std::isnan(value);
  return {std::move(name), limit, measured ? std::optional(value) : std::nullopt,
          measured && (at_most ? value <= limit : value >= limit)};
}

}  // namespace

DataReport describe_data(std::string role, const SampleSource& source) {
  return {std::move(role), source.description(), source.digest(), source.formula(), source.size(), source.synthetic()};
}

Status apply_gates(Report& report, const GateLimits& limits) {
  if (limits.max_drop) {
    const ScorePair* headline = report.comparison ? report.comparison->headline() : nullptr;
    if (headline == nullptr || !headline->drop)
      return fail(Code::usage,
                  "--max-drop needs a metric that can drop: evaluation data with labels, token data with "
                  "--metric perplexity, or outputs with classes");
    report.gates.push_back(gate("max-drop", *limits.max_drop, *headline->drop, true));
  }
  if (limits.min_sqnr) {
    const auto worst = report.comparison ? report.comparison->worst_sqnr() : std::nullopt;
    if (!worst) return fail(Code::usage, "--min-sqnr needs evaluation data");
    report.gates.push_back(gate("min-sqnr", *limits.min_sqnr, *worst, false));
  }
  if ((limits.max_size || limits.max_ratio) && !report.output)
    return fail(Code::usage, "--{} needs an output model", limits.max_size ? "max-size" : "max-ratio");
  if (limits.max_size)
    report.gates.push_back(
        gate("max-size", static_cast<double>(*limits.max_size), static_cast<double>(report.output->bytes()), true));
  if (limits.max_ratio) {
    const auto input = static_cast<double>(report.input.bytes());
    report.gates.push_back(
        gate("max-ratio", *limits.max_ratio, static_cast<double>(report.output->bytes()) / input, true));
  }
  return {};
}

bool gates_pass(const Report& report) { return std::ranges::all_of(report.gates, &Gate::pass); }

std::vector<SkipGroup> group_skips(const std::vector<JournalEntry>& journal) {
  std::vector<SkipGroup> groups;
  std::map<std::pair<std::string, std::string>, std::size_t> found;
  for (const JournalEntry& entry : journal) {
    if (entry.done || entry.node.empty()) continue;
    const auto [at, fresh] = found.try_emplace({entry.pass, entry.text}, groups.size());
    if (fresh) groups.push_back({.pass = entry.pass, .reason = entry.text, .nodes = {}});
    groups[at->second].nodes.push_back(entry.node);
    ++groups[at->second].count;
  }
  return groups;
}

std::string summary_line(const Report& report) {
  std::vector<std::string> parts;
  const std::uint64_t before = report.input.bytes();
  if (report.output) {
    const std::uint64_t after = report.output->bytes();
    parts.push_back(fmt::format("{} -> {} ({})", human_bytes(before), human_bytes(after), ratio_text(after, before)));
  } else {
    if (before > 0) parts.push_back(human_bytes(before));
    parts.push_back(human_count(report.before.parameters) + " parameters");
    if (report.before.macs > 0) parts.push_back(human_count(report.before.macs) + " MACs");
  }
  add_accuracy(report, parts);
  if (report.latency) parts.push_back("p50 " + seconds_text(report.latency->p50));
  if (report.latencies)
    parts.push_back(fmt::format("p50 {} -> {} ({:.2f}x as fast)", seconds_text(report.latencies->before.p50),
                                seconds_text(report.latencies->after.p50), report.latencies->speedup()));
  if (!report.gates.empty()) {
    const auto failed = std::ranges::count(report.gates, false, &Gate::pass);
    parts.push_back(failed == 0 ? "gates passed" : fmt::format("{} of {} gates FAILED", failed, report.gates.size()));
  }
  return join(parts, " · ");
}

Status write_report(const Report& report, const std::string& path) {
  if (path.ends_with(".json")) return write_text_file(path, report_json(report));
  if (path.ends_with(".md")) return write_text_file(path, report_markdown(report));
  if (path.ends_with(".txt")) return write_text_file(path, report_text(report, {.color = false, .max_rows = 0}));
  return fail(Code::usage, "report {}: the name must end in .json, .md or .txt", escape_control(path));
}

}  // namespace onnxpress
