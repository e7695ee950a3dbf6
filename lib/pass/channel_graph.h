// Which channels of which activations must share one scale factor, and which linear ops make and read them.
//
// A positive factor per channel can be moved through ReLU and its kin, pools, data movement, residual additions and
// concatenation without changing what a network computes:
//   f(x / s) = f(x) / s      so      W2 (f(W1 x + b1)) = (W2 s) (f((W1 / s) x + b1 / s))
// Every channel of every value that a linear op makes gets an id; ids that such ops tie together are one class (found by
// root()); class 0 is everything that has to stay: network inputs and outputs, and what other ops read.
#pragma once

#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ir/model.h"
#include "pass/linear.h"
#include "pass/pass.h"

namespace onnxpress {

using ChannelIds = std::vector<std::size_t>;

// Conv, ConvTranspose, Gemm or MatMul with private float weights.
struct ChannelLayer {
  Linear linear;
  std::string input, output;  // values; the output is behind the bias
  std::int64_t in_axis = 1, out_axis = 1;  // of the channels
  ChannelIds in, out;
};

// A node whose constant per-channel scale and shift can take a factor: LayerNormalization, RMS normalization,
// BatchNormalization, Mul with a constant.
struct ChannelAffine {
  Node node;
  std::vector<std::size_t> slots;  // constants to divide by the factor
  ChannelIds out;
};

// Clip(x, 0, upper): scaled channels keep their meaning only while the bound does.
struct ChannelBound {
  Node node;
  double upper = 0;
  std::int64_t axis = 1;
  ChannelIds ids;
};

// Layers whose input is divided by `factor` in a Mul of its own, because what makes the value cannot take it.
struct ChannelInsertion {
  std::string value;
  std::vector<std::size_t> layers;  // of ChannelGraph::layers(); all read the value, channels along its last axis
  std::vector<double> factor;
};

class ChannelGraph {
 public:
  struct Options {
    bool affine = false;  // whether ChannelAffine nodes start channels of their own
  };
  // `graph` must be able to hold initializers. Layers that context.selected() refuses stay as they are.
  ChannelGraph(Graph& graph, PassContext& context, Options options);

  const std::vector<ChannelLayer>& layers() const { return layers_; }
  const std::vector<ChannelAffine>& affines() const { return affines_; }
  const std::vector<ChannelBound>& bounds() const { return bounds_; }

  std::size_t size() const { return parent_.size(); }  // ids
  std::size_t root(std::size_t id) const;
  bool fixed(std::size_t id) const { return root(id) == 0; }
  // Why a class had to stay; "" when it need not.
  const std::string& reason(std::size_t id) const;
  void fix(const ChannelIds& ids, const std::string& why);

  // Divides what makes channel c by factor[root(c)] and multiplies what reads it by the same. Returns the reason why
  // nothing was changed: a weight would not be finite in its type; "" when it was done.
  Result<std::string> apply(const std::vector<double>& factor, std::vector<Node>* touched,
                            std::span<const ChannelInsertion> insertions = {});

 private:
  struct Value {
    std::int64_t axis = 0;  // not negative when the rank is known
    ChannelIds ids;
  };
  Result<std::string> scale_affines(Rewriter& rewriter, const std::vector<double>& factor,
                                    std::vector<Node>* touched) const;
  Result<std::string> scale_layer(Rewriter& rewriter, const ChannelLayer& layer, const std::vector<double>& in,
                                  const std::vector<double>& out) const;
  std::vector<double> gather(const ChannelIds& ids, const std::vector<double>& factor, bool inverse) const;
  void visit(const Node& node);
  bool visit_layer(const Node& node);
  bool visit_affine(const Node& node);
  bool visit_same(const Node& node);
  bool visit_clip(const Node& node);
  bool visit_shape(const Node& node);
  bool visit_joined(const Node& node);
  bool visit_product(const Node& node);
  bool visit_concat(const Node& node);
  void refuse(const Node& node);
  void fix_outside_readers();
  const Value* find(std::string_view value) const;
  std::int64_t normal(std::string_view value, std::int64_t axis) const;
  void unite(std::size_t a, std::size_t b);
  ChannelIds fresh(std::size_t count);
  bool keeps_channels(const Node& node, std::int64_t axis) const;

  Graph& graph_;
  PassContext& context_;
  Options options_;
  std::vector<ChannelLayer> layers_;
  std::vector<ChannelAffine> affines_;
  std::vector<ChannelBound> bounds_;
  std::map<std::string, Value> values_;
  std::vector<Node> claimed_;  // bias Adds
  std::vector<std::size_t> parent_;
  std::unordered_map<std::size_t, std::string> reasons_;  // of ids that became fixed, by their last own root
  std::string none_;
};

}  // namespace onnxpress
