#include "sparse/layer_moments.h"

#include <algorithm>
#include <set>

#include "calib/levels.h"

namespace onnxpress {
namespace {

// The moments of an output beside another of the same channels, position by position.
PatchShape pointwise(const PatchShape& like) {
  PatchShape shape;
  shape.length = shape.outputs = like.outputs;
  if (!like.is_conv()) return shape;
  const std::size_t axes = like.kernel.size();
  shape.kernel.assign(axes, 1);
  shape.strides.assign(axes, 1);
  shape.dilations.assign(axes, 1);
  shape.pads.assign(2 * axes, 0);
  return shape;
}

// The sums of one layer. `sum` and `other` stand for the values of its ResidualAdd.
struct Sums {
  GramAccumulator plain;
  struct Residual {
    ResidualAdd values;
    GramAccumulator sum, other, cross;  // of (y + z, x), (z^, x) and (y + z, z^)
  };
  std::optional<Residual> residual;
};

// sum of (u - v) and x from those of u and x, v and x, u and v.
Gram difference(const Gram& u, const Gram& v, const Gram& cross) {
  Gram out = u;
  const std::size_t channels = u.shape.outputs;
  for (std::size_t i = 0; i < out.yx.size(); ++i) out.yx[i] -= v.yx[i];
  for (std::size_t c = 0; c < channels; ++c) {
    out.y[c] -= v.y[c];
    out.yy[c] = std::max(0.0, u.yy[c] + v.yy[c] - 2 * cross.yx[c * channels + c]);
  }
  return out;
}

// Sum of the squares of all outputs, about their means.
double power_of(const Gram& gram) {
  double power = 0;
  for (std::size_t c = 0; c < gram.shape.outputs; ++c)
    power += std::max(0.0, gram.yy[c] - gram.y[c] * gram.y[c] / static_cast<double>(gram.rows));
  return power;
}

// Outputs without the bias that is added behind the node.
void take_off(Gram& gram, std::span<const double> bias) {
  const std::size_t k = gram.shape.length, per_group = gram.shape.outputs_per_group();
  const auto rows = static_cast<double>(gram.rows);
  for (std::size_t c = 0; c < bias.size(); ++c) {
    const auto x = gram.x_of(c / per_group);
    for (std::size_t i = 0; i < k; ++i) gram.yx[c * k + i] -= bias[c] * x[i];
    gram.yy[c] += rows * bias[c] * bias[c] - 2 * bias[c] * gram.y[c];
    gram.y[c] -= rows * bias[c];
  }
}

// The three saw the same rows: no broadcasting, nothing left out of one only.
bool same_rows(const Gram& a, const Gram& b, const Gram& c) {
  return a.rows == b.rows && a.rows == c.rows && a.xx == b.xx && a.xx == c.xx;
}

Result<LayerMoments> moments_of(const SparseLayer& layer, Sums& sums) {
  LayerMoments out{.trouble = sums.plain.finish(), .fitted = {}, .held_out = {}};
  if (!out.trouble.empty()) return out;
  out.fitted = sums.plain.fitted();
  out.held_out = sums.plain.held_out();
  out.power = power_of(*out.fitted);
  if (!sums.residual) return out;
  auto& [values, sum, other, cross] = *sums.residual;
  if (!sum.finish().empty() || !other.finish().empty() || !cross.finish().empty()) return out;
  if (!same_rows(*out.fitted, sum.fitted(), other.fitted()) ||
      !same_rows(*out.held_out, sum.held_out(), other.held_out()) || cross.fitted().rows != out.fitted->rows ||
      cross.held_out().rows != out.held_out->rows)
    return out;
  out.power = power_of(sum.fitted());
  Gram fitted = difference(sum.fitted(), other.fitted(), cross.fitted());
  Gram held_out = difference(sum.held_out(), other.held_out(), cross.held_out());
  if (layer.linear.bias_node && layer.linear.bias_node != layer.node()) {
    OP_LET(const std::vector<double> bias, read_bias(layer.linear));
    take_off(fitted, bias);
    take_off(held_out, bias);
  }
  out.fitted = std::move(fitted);
  out.held_out = std::move(held_out);
  out.residual = true;
  return out;
}

}  // namespace

std::optional<ResidualAdd> residual_add(const SparseLayer& layer) {
  const Node& last = layer.linear.last();
  const Graph& graph = last.graph();
  const auto use = only_use(graph, last.output(0));
  if (!use || !use->node.is("Add")) return std::nullopt;
  const std::string other(use->node.input(1 - use->slot));
  if (graph.is_constant(other) || graph.is_input(other) || other == last.output(0)) return std::nullopt;
  return ResidualAdd{std::string(use->node.output(0)), other};
}

std::uint64_t moments_bytes(const SparseLayer& layer, bool residual) {
  const bool more = residual && residual_add(layer);
  return gram_bytes(layer.shape) * (more ? 4 : 2) + (more ? gram_bytes(pointwise(layer.shape)) : 0);
}

Result<std::vector<LayerMoments>> collect_moments(PassContext& context, const Model& original, const Model& model,
                                                  std::span<const SparseLayer> layers, std::size_t positions,
                                                  bool residual) {
  std::vector<std::unique_ptr<Sums>> sums;
  std::vector<PairTap> with_original, within;
  std::set<std::string> claimed;
  for (const SparseLayer& layer : layers) {
    const auto gram = [&](const PatchShape& shape) { return GramAccumulator(shape, positions, context.seed); };
    sums.push_back(std::make_unique<Sums>(gram(layer.shape), std::nullopt));
    with_original.push_back({layer.output(), layer.input(), &sums.back()->plain});
    const auto add = residual ? residual_add(layer) : std::nullopt;
    if (!add || !claimed.insert(add->sum).second) continue;
    auto& own = sums.back()->residual;
    own.emplace(*add, gram(layer.shape), gram(layer.shape), gram(pointwise(layer.shape)));
    with_original.push_back({add->sum, layer.input(), &own->sum});
    with_original.push_back({add->sum, add->other, &own->cross});
    within.push_back({add->other, layer.input(), &own->other});
  }
  OP_TRY(collect_pairs_up_to(*context.activations, original, model, with_original));
  if (!within.empty()) OP_TRY(collect_pairs_up_to(*context.activations, model, model, within));
  std::vector<LayerMoments> out;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    OP_LET(LayerMoments moments, moments_of(layers[i], *sums[i]));
    out.push_back(std::move(moments));
    sums[i].reset();
  }
  return out;
}

}  // namespace onnxpress
