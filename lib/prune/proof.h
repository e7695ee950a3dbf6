// The proof that a removal is right: the old network with the units' parameters set to zero must compute what the new,
// narrower one computes. A wrong rule is caught before anything is written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "pass/pass.h"
#include "prune/dependency.h"

namespace onnxpress {

inline constexpr double kProofTolerance = 1e-4;  // max |a - b| over max |a|, per output

struct Proof {
  struct Failure {
    std::size_t group = 0;
    std::string reason;  // "outputs differ by 0.3 of their range", or what remove_units() or the runtime said
  };
  Removal removal;                // what passed
  std::vector<Failure> failures;  // groups taken out of it
  double error = 0;               // of what passed
  std::string unproven = {};      // why nothing could be run ("no engine", "input 'ids' has no random values"); then
                                  // `removal` is what was asked for
};

// Removes everything at once in a copy and compares; on failure the groups at fault are found by halving. Groups that
// are only approximate are compared with what they leave untouched zeroed the same way, so they are judged where that
// is possible and otherwise only by loading. Inputs are random with `seed`: floats in [-1, 1], integers valid as
// indices; free dimensions get small sizes.
Result<Proof> prove_removal(const Model& model, const Graph& graph, const DependencyGraph& dependencies,
                            Removal removal, PassContext& context);

}  // namespace onnxpress
