// onnxpress lint: what the runtime will make of each node, before anything is run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "flow/fusion_check.h"
#include "quant/target.h"

namespace onnxpress {

struct LintRequest {
  std::string model;
  std::string target = "auto";  // a name of target_choices()
  bool verify = false;          // also runs the runtime's optimizer and compares
  bool fail_on_blocker = false;
};

struct LintRow {
  std::string node, op, scope;  // scope: "" in the main graph, else the node whose body or the function it is in
  std::string fate;             // "integer", "absorbed", "float", "conversion"
  std::string becomes;          // "QLinearConv", "float", "-"
  std::string note;             // the blocker, or by what it is absorbed
  std::optional<std::uint64_t> macs;
  bool compute = false;  // has multiplications worth counting
  std::size_t saturating = 0, channels = 0;
};

struct LintResult {
  std::string model, target;
  std::vector<LintRow> rows;
  std::size_t compute = 0, integer = 0, blocked = 0;  // nodes with multiplications; blocked: float for a reason
  std::size_t conversions = 0;                        // QuantizeLinear and DequantizeLinear that are executed
  std::uint64_t macs = 0, integer_macs = 0;
  std::vector<std::string> warnings;
  std::optional<FusionCheck> check;

  // False with --verify when fewer than 99 % of the nodes were predicted right, and with --fail-on-blocker when a
  // compute node is blocked or channels can saturate.
  bool passed = true;
};

// Errors: usage (target), those of load_model(), with verify those of the engine.
Result<LintResult> lint(const LintRequest& request);

// For a terminal: everything that is not plain float is listed with `all`, else what computes or is blocked.
std::string lint_text(const LintResult& result, bool all);
std::string lint_json(const LintResult& result);

}  // namespace onnxpress
