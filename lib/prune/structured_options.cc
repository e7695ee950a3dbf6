#include "prune/structured.h"

namespace onnxpress {

void StructuredOptions::describe(Schema<StructuredOptions>& schema) {
  const Range share{0, 1};
  schema
      .add("ratio", &StructuredOptions::ratio,
           "share of the units that goes: of every group, or with another scope of all that compete; 0.5 without any "
           "target",
           share)
      .add("macs", &StructuredOptions::macs, "target: at most this share of the multiply-accumulates is left", share)
      .add("params", &StructuredOptions::params, "target: at most this share of the parameters is left", share)
      .add("criterion", &StructuredOptions::criterion,
           {{"auto", Criterion::automatic},
            {"random", Criterion::random},
            {"l1", Criterion::l1},
            {"l2", Criterion::l2},
            {"group_l2", Criterion::group_l2},
            {"bn_gamma", Criterion::bn_gamma},
            {"fpgm", Criterion::fpgm},
            {"activation", Criterion::activation},
            {"obs", Criterion::obs},
            {"loss", Criterion::loss}},
           "how much a unit matters; activation, obs and loss need --data; auto is obs with it (activation where that "
           "would take long), group_l2 without")
      .add("scope", &StructuredOptions::scope,
           {{"local", Scope::local}, {"global", Scope::global}, {"isomorphic", Scope::isomorphic}},
           "units compete within their group, with all others, or with those of groups built alike")
      .add("round_to", &StructuredOptions::round_to,
           "what is left of a group's channels becomes the nearest multiple: runtimes compute in blocks", {1, 4096})
      .add("max_ratio", &StructuredOptions::max_ratio, "at most this share of one group goes", share)
      .add("min_keep", &StructuredOptions::min_keep, "at least so many units of a group stay", {1, {}})
      .add("steps", &StructuredOptions::steps, "prune little by little, with new scores (and repair) each time",
           {1, 100})
      .add("inner", &StructuredOptions::inner,
           "prune only inside blocks: units that residual additions tie together all stay")
      .add("allow_normalized", &StructuredOptions::allow_normalized,
           "also units that a LayerNormalization and its kin normalize over: its statistics change")
      .add_part(&StructuredOptions::repair);
}

std::string structured_description() {
  return "A dependency graph over every index of every axis finds which slices of which weights have to go together: "
         "these are the units, and units of the same footprint form a group (`onnxpress groups` lists them and what "
         "blocks the rest). criterion scores the units: auto (with data obs, or activation where obs would take long; "
         "else group_l2), random, l1 and l2 (norm of the slices that make a unit), "
         "group_l2 (with those that read it), bn_gamma (scale of the normalization behind), fpgm (distance to the "
         "other "
         "units), and with data activation (its root mean square times the norm of what reads it), obs (what the "
         "layers "
         "that read it lose when they are refitted) and loss (divergence of the outputs without it; slow). Each weight "
         "counts relative to its mean.\n\n"
         "ratio takes that share of every group (scope=local) or of all groups by score over the group's mean "
         "(scope=global, guarded by max_ratio and min_keep; scope=isomorphic within groups built alike). macs= and "
         "params= look for the least that meets the target instead. The channels that are left become the nearest "
         "multiple of round_to, because runtimes compute in blocks of 8 or 16; a group that is no wider stays. A ratio "
         "p on all widths leaves about (1-p)^2 of the parameters. The residual stream is a group like any other but "
         "the one that hurts most; inner=true leaves it whole. only= and skip= name nodes: the units "
         "that a node makes stay when it is not selected.\n\n"
         "Before anything is cut, the original with the chosen units at zero is compared with the narrowed network on "
         "random input; a group that fails is left whole and named. With --data the layers are then fitted to what "
         "the original computes (repair). A model whose file would not shrink is left as it is.";
}

}  // namespace onnxpress
