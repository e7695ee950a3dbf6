// The proof that a removal is right: the old network with the units' parameters set to zero must compute what the new,
// narrower one computes. A wrong rule is caught before anything is written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "depend/dependency.h"
#include "pass/pass.h"

namespace onnxpress {

inline constexpr double kProofTolerance = 1e-4;  // max |a - b| over max |a|, per output
inline constexpr double kCoarseTolerance = 0.05;

struct Proof {
  struct Failure {
    std::size_t group = 0;
    std::string reason;  // "outputs differ by 0.3 of their range", or what remove_units() or the runtime said
  };
  Removal removal;                // what passed
  std::vector<Failure> failures;  // groups taken out of it, by number
  double error = 0;               // of what passed
  double effect = 0;              // how far its outputs are from those of the model as it is, by the same measure
  std::string unproven = {};      // why nothing could be run ("no engine", "input 'ids' has no random values"); then
                                  // `removal` is what was asked for
  std::string weak = {};          // why passing means little: "the outputs do not depend on what was removed"
  std::size_t trials = 0;         // pairs of models compared
};

// Removes everything at once in a copy and compares; on failure the groups at fault are found by halving. Where units
// are normalized over (groups that are `approximate`), the old network runs the norm over what is left, too; see
// blank.h. Inputs are random with the context's seed; see random_run.h. Sessions are opened one after the other, and no
// more than one copy of the model's weights is held beside it. `graph` is a scope of `model`; the model is run whole.
// Models that compute in half precision or in integers round differently when sums get shorter: their outputs may
// differ by kCoarseTolerance.
// Errors: io, resource; whatever else goes wrong is a Failure or `unproven`.
Result<Proof> prove_removal(const Model& model, const Graph& graph, const DependencyGraph& dependencies,
                            Removal removal, PassContext& context);

}  // namespace onnxpress
