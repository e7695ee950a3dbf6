// What the structured pruning passes share: score the units of the dependency groups, choose which go, prove, remove,
// repair.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "base/result.h"
#include "depend/dependency.h"
#include "pass/options.h"
#include "pass/pass.h"
#include "repair/repair.h"

namespace onnxpress {

struct StructuredOptions {
  // How much a unit matters.
  enum class Criterion {
    automatic,   // with data obs, or activation where obs would take long; else group_l2
    random,      // drawn with the seed
    l1,          // mean over its slices of sum |w|
    l2,          // mean over the slices that make it of ||w||_2
    group_l2,    // the same over the slices that make it and those that read it, each set divided by its mean
    bn_gamma,    // |scale| of the normalization behind it
    fpgm,        // sum of distances to the other units' slices (He et al., arXiv 1811.00250)
    activation,  // root mean square of its activation times the norm of what reads it; needs data
    obs,         // what removing it costs the layers that read it after they are refitted; needs data
    loss,        // Kullback-Leibler divergence of the outputs when it alone is gone; needs data, slow
  };
  enum class Scope { local, global, isomorphic };

  std::optional<double> ratio = {};  // of the units of every group (local), or of all of them; 0.5 without a target
  std::optional<double> macs = {};   // target: at most this share of the multiply-accumulates
  std::optional<double> params = {};
  Criterion criterion = Criterion::automatic;
  Scope scope = Scope::local;
  std::int64_t round_to = 16;  // what is left of a group's channels is a multiple of it
  double max_ratio = 0.9;      // of one group
  std::int64_t min_keep = 1;   // units of a group
  std::int64_t steps = 1;      // scores are taken anew after each
  bool inner = false;          // only units inside blocks: what residual additions tie together stays whole
  bool allow_normalized = false;
  RepairOptions repair = {};

  static void describe(Schema<StructuredOptions>& schema);
};

// What the passes that take these options have to say about them, for their descriptions.
std::string structured_description();

// Prunes the groups of these kinds in the main graph and in bodies. Errors: usage for options that contradict each
// other or need samples when there are none; those of the weights, the samples, the proof and the repair.
Result<Outcome> prune_structured(Model& model, PassContext& context, const StructuredOptions& options,
                                 const std::set<UnitKind>& kinds);

}  // namespace onnxpress
