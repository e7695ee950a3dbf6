// Which nodes a pass may touch: only=, skip= and on{...}.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

// One pattern: a node name or glob ("/layer1/*"), "re:REGEX" (RE2, whole name) or "op:Conv" (glob on the op type).
// A node without a name is matched by its label.
class Selector {
 public:
  static Result<Selector> parse(std::string_view pattern);
  bool matches(const Node& node) const;
  const std::string& text() const { return text_; }

 private:
  struct Impl;
  std::string text_;
  std::shared_ptr<const Impl> impl_;
};

// only= empty means every node; skip= wins over only=.
struct Selection {
  std::vector<Selector> only;
  std::vector<Selector> skip;
  bool empty() const { return only.empty() && skip.empty(); }
  // "" when the node is selected, else the reason ("not in only=", "matches skip=op:Gemm").
  std::string refusal(const Node& node) const;
};

}  // namespace onnxpress
