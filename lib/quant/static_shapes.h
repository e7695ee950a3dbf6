// Types and shapes of values as one run sees them: what costs are computed from.
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>

#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress {

struct SeenType {
  DType dtype = DType::undefined;
  Dims dims = {};
  std::size_t elements() const { return static_cast<std::size_t>(element_count(dims).value_or(0)); }
};

class SeenTypes {
 public:
  // A value as a scope reads it; captured ones are found in the scope that defines them.
  struct Read {
    const Graph* scope = nullptr;
    std::string value;
  };
  // Shapes of `reads`: as inferred where they are fixed, else as the first calibration sample has them. Without samples
  // a free dimension counts as 1. What the first sample never computes (a branch not taken) is not there.
  static Result<SeenTypes> look(const Model& model, std::span<const Read> reads, PassContext& context);

  const SeenType* find(const Graph& scope, std::string_view value) const;

 private:
  std::map<std::pair<const Graph*, std::string>, SeenType> seen_;
};

}  // namespace onnxpress
