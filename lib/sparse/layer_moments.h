// What the sparse layers of a model are fitted to: second moments of what they read in the model as it is now beside
// what the original gives there.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calib/gram.h"
#include "sparse/sparse_layer.h"

namespace onnxpress {

// The Add of another branch behind a layer that nothing else reads: y + z.
struct ResidualAdd {
  std::string sum, other;  // values: y + z and z
};
std::optional<ResidualAdd> residual_add(const SparseLayer& layer);

struct LayerMoments {
  std::string trouble;                   // why there are none, or ""
  std::optional<Gram> fitted, held_out;  // of node().input(0) and the wanted node().output(0)
  bool residual = false;                 // of y + z - z^ instead of y, see below
  double power = 0;  // of y about its mean, or of y + z, on the fitted rows: what errors are weighed against
};

// One pass over the samples (two when there are residual layers) for layers that do not depend on one another. Wanted
// is the output y of the original. With `residual`, of a layer whose output is only added to another branch z it is y +
// z - z^, where z^ is that branch in `model`: the layer makes up for the errors that came along it as well. Of several
// layers in front of one Add only the first does.
Result<std::vector<LayerMoments>> collect_moments(PassContext& context, const Model& original, const Model& model,
                                                  std::span<const SparseLayer> layers, std::size_t positions,
                                                  bool residual);
// Bytes for one layer.
std::uint64_t moments_bytes(const SparseLayer& layer, bool residual);

}  // namespace onnxpress
