// Linear ops seen by channel: which nodes they are, where their weights and biases lie. What passes that move factors
// and shifts between ops share.
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/model.h"
#include "ir/rewriter.h"
#include "num/channels.h"

namespace onnxpress {

template <class T>
using OrReason = std::expected<T, std::string>;  // the reason why not
inline std::unexpected<std::string> no(std::string reason) { return std::unexpected(std::move(reason)); }

// y = alpha * weight(x) + beta * bias
struct Linear {
  Node node;            // reads the weight at slot 1
  Node bias_node = {};  // where the bias is added; empty when nothing can add one (MatMul without Add)
  std::size_t bias_slot = 2;
  DType dtype = DType::undefined;
  Dims dims = {};
  ChannelLayout layout = {};
  double alpha = 1, beta = 1;
  Node shift = {};  // an Add of one number per channel behind it, beside its own bias; only with_shift() sets it

  std::string bias() const { return bias_node ? std::string(bias_node.input(bias_slot)) : std::string(); }
  const Node& last() const { return bias_node ? bias_node : node; }
};

bool is_linear(const Node& node);  // Conv, ConvTranspose, Gemm or MatMul

// The one reader of a value, when there is exactly one, in the same graph, and the value is not handed out.
OrReason<Use> only_use(const Graph& graph, std::string_view value);

// The Add of a constant that is the only reader of a MatMul; an empty handle when there is none.
Node add_after(const Node& matmul);

// `node` is a Conv, ConvTranspose, Gemm or MatMul, `add` the Add of its bias. Weight and bias must be float constants,
// the bias one number per output channel or one number.
OrReason<Linear> describe_linear(const Node& node, const Node& add);

// A Conv, Gemm or MatMul whose weight and bias can be changed: it alone reads the weight, and its attributes fit it.
// The Add behind a MatMul counts where it adds a bias.
OrReason<Linear> changeable_linear(const Node& node);

// The weight of a Conv, Gemm or MatMul as rows [outputs, length], alpha included, and back: nullopt when a number does
// not fit the weight's type. Errors: io.
Result<std::vector<double>> read_weight_rows(const Linear& linear);
Result<std::optional<Tensor>> weight_of_rows(const Linear& linear, std::vector<double> rows);

// The Conv, ConvTranspose or Gemm whose only reader is `add`, which adds a constant, one number per output channel (or
// one): exporters of TensorFlow models leave biases there.
OrReason<Linear> with_shift(const Node& add);

// beta * bias + shift, one number per output channel; zeros when there is none.
Result<std::vector<double>> read_bias(const Linear& linear);

// Adds a bias behind a MatMul that has none: its result gets another name, the Add takes the old one.
void add_bias_behind(Rewriter& rewriter, const Node& matmul, Tensor bias);

// Whether the convolution (or pool) reads zeros around its input.
bool pads(const Node& node);

// Why nothing can be assumed of a BatchNormalization or changed in it: training mode, spatial=0, parameters that are
// not constant, a scope without initializers. "" when it is  scale * (x - mean) / sqrt(var + epsilon) + B  per channel.
std::string batchnorm_refusal(const Node& bn);

}  // namespace onnxpress
