// From ranges to scales and zero points, by what the runtime absorbs and where one scale cannot serve.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "calib/min_max.h"
#include "quant/qdq.h"
#include "quant/static_plan.h"

namespace onnxpress {

struct CodeRules {
  Target target = Target::automatic;
  ActivationFormat format = ActivationFormat::uint8;  // resolved
};

// Parameters for a measured range. Behind an absorbed Relu or Clip the codes stand for nothing outside its bounds,
// so that dropping it changes nothing.
CodeParams choose_params(const ValueRange& range, const std::optional<Absorbed>& absorbed, const CodeRules& rules);
// Of a result of Sigmoid or Softmax: [0, 1).
CodeParams unit_params(const CodeRules& rules);

// A join that one scale cannot serve: the inputs of a Concat, or of an Add with a mask, whose ranges lie far apart.
struct BadJoin {
  std::string reason;   // why the node stays float
  std::string warning;  // "" when it is no news for the user
};
struct NamedRange {
  std::string value;
  ValueRange range;
};
std::optional<BadJoin> bad_join(const Node& node, const std::vector<NamedRange>& inputs);

// Why a value cannot be codes whoever reads it; "" when it can.
std::string unfit_range(const ValueRange& range);

}  // namespace onnxpress
