#include "quant/static_cost.h"

#include <algorithm>
#include <cassert>
#include <string>

#include "quant/static_roles.h"

namespace onnxpress {
namespace {

double up(double value, double block) {
  const double blocks = value / block;
  const auto whole = static_cast<double>(static_cast<std::int64_t>(blocks));
  return (whole < blocks ? whole + 1 : whole) * block;
}

double product(std::span<const std::int64_t> dims) {
  double result = 1;
  for (const std::int64_t dim : dims) result *= static_cast<double>(dim);
  return result;
}

struct Job {
  std::string_view key;
  CostFeatures real = {}, integer = {};
};

// weight [outputs, inputs / groups, taps...]
Job conv_job(const Node& node, const Dims& weight, const Dims& out) {
  const double groups = static_cast<double>(node.attr_int("group", 1));
  const double outputs = static_cast<double>(weight[0]), inputs = static_cast<double>(weight[1]);
  const double taps = product(std::span(weight).subspan(2));
  const double positions = product(out) / std::max(outputs, 1.0);
  Job job = {.key = "conv"};
  job.real.outputs = job.integer.outputs = product(out);
  if (is_depthwise(node)) {
    job.key = "conv.depthwise";
    job.real.macs = positions * taps * up(outputs, 16);
    // The integer kernel takes 8 channels at a time and what is left one by one.
    if (taps > 1) job.real.patches = positions * taps * (1 + 2 * static_cast<double>(weight[0] % 8));
    job.integer = job.real;
    return job;
  }
  if (groups > 1) job.key = "conv.grouped";
  if (groups == 1 && taps == 1) job.key = "conv.pointwise";
  job.real.macs = positions * taps * (inputs < 16 ? inputs : up(inputs, 16)) * up(outputs / groups, 16) * groups;
  job.integer.macs = positions * up(taps * inputs, 4) * up(outputs / groups, 16) * groups;
  if (taps > 1) job.real.patches = job.integer.patches = positions * taps * groups;
  return job;
}

Job matmul_job(std::string_view key, double rows, double depth, double columns, double batch) {
  Job job = {.key = key};
  job.real = {.macs = batch * rows * up(depth, 4) * up(columns, 16),
              .outputs = batch * rows * columns,
              .weights = batch * depth * columns};
  job.integer = job.real;
  return job;
}

constexpr std::pair<std::string_view, std::string_view> kPlain[] = {{"Add", "add"},
                                                                    {"Mul", "mul"},
                                                                    {"Concat", "concat"},
                                                                    {"Sigmoid", "sigmoid"},
                                                                    {"LeakyRelu", "leaky_relu"},
                                                                    {"Softmax", "softmax"},
                                                                    {"Transpose", "transpose"},
                                                                    {"Slice", "slice"},
                                                                    {"Gather", "slice"},
                                                                    {"GatherElements", "slice"},
                                                                    {"Split", "slice"},
                                                                    {"Expand", "slice"},
                                                                    {"Tile", "slice"},
                                                                    {"Resize", "resize"},
                                                                    {"DepthToSpace", "transpose"}};

// Taps of a pooling window.
double window(const Node& node) { return product(node.attr_ints("kernel_shape")); }

std::optional<Job> job_of(const Node& node, const SeenType& in, const SeenType& out) {
  const Graph& graph = node.graph();
  if (node.is("Conv")) {
    const auto weight = graph.constant_type(node.input(1));
    return weight && weight->second.size() > 2 ? std::optional(conv_job(node, weight->second, out.dims)) : std::nullopt;
  }
  if (node.is("MatMul") || node.is("Gemm")) {
    const double columns = out.dims.empty() ? 1 : static_cast<double>(out.dims.back());
    const double all = product(out.dims);
    if (const auto weight = graph.constant_type(node.input(1))) {
      const double depth = product(weight->second) / std::max(columns, 1.0);
      return matmul_job("matmul", all / std::max(columns, 1.0), depth, columns, 1);
    }
    if (out.dims.size() < 2 || in.dims.empty()) return std::nullopt;
    const auto rows = static_cast<double>(out.dims[out.dims.size() - 2]);
    const auto depth = static_cast<double>(in.dims.back());
    return matmul_job("product", rows, depth, columns, all / std::max(rows * columns, 1.0));
  }
  Job job;
  job.real.outputs = product(out.dims);
  if (node.is("MaxPool") || node.is("AveragePool")) {
    job.key = node.is("MaxPool") ? "max_pool" : "average_pool";
    job.real.macs = job.real.outputs * window(node);
  } else if (node.is("GlobalAveragePool") || node.is("ReduceMax")) {
    job.key = "global_average_pool";
    job.real.outputs = product(in.dims);
  } else if (const auto plain = std::ranges::find(kPlain, node.op(), [](const auto& each) { return each.first; });
             plain != std::end(kPlain)) {
    job.key = plain->second;
  } else {
    job.key = "node";  // moves no data
    job.real = {};
  }
  job.integer = job.real;
  return job;
}

// The runtime folds these into the float convolution before them: what remains is their arithmetic.
bool joins_convolution(const Node& node) {
  if (!node.is("Add") && !node.is("LeakyRelu") && !node.is("Sigmoid")) return false;
  const Graph& graph = node.graph();
  for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
    const Node producer = graph.producer(node.input(slot));
    if (producer && producer.is("Conv") && graph.uses(node.input(slot)).size() == 1 &&
        !graph.is_output(node.input(slot)))
      return true;
  }
  return false;
}
constexpr double kJoined = 0.3;  // of the time it takes alone; the memory traffic is gone

}  // namespace

double CostLine::us(const CostFeatures& features) const {
  return fixed_us + (macs_ns * features.macs + outputs_ns * features.outputs + patches_ns * features.patches +
                     weights_ns * features.weights) /
                        1000;
}

std::optional<CostModel> CostModel::of(Target target) {
  const std::span<const CostRow> rows = cost_table(target);
  return rows.empty() ? std::nullopt : std::optional(CostModel(rows));
}

const CostRow& CostModel::row(std::string_view key) const {
  const auto found = std::ranges::find(rows_, key, &CostRow::key);
  assert(found != rows_.end());
  return *found;
}

std::optional<CostModel::Times> CostModel::node(const Node& node, const SeenTypes& types) const {
  const SeenType* in = types.find(node.graph(), node.input(0));
  const SeenType* out = types.find(node.graph(), node.output(0));
  if (in == nullptr || out == nullptr) return std::nullopt;
  const auto job = job_of(node, *in, *out);
  if (!job) return std::nullopt;
  const double overhead = row("node").real.fixed_us;
  const CostRow& line = row(job->key);
  Times times = {line.real.us(job->real) + overhead, line.integer.us(job->integer) + overhead};
  if (joins_convolution(node)) times.real *= kJoined;
  return times;
}

double CostModel::convert(std::string_view key, const SeenType& type, bool integer_image, bool float_image) const {
  const CostFeatures features = {.outputs = static_cast<double>(type.elements())};
  const bool image = type.dims.size() == 4;
  double us = row(key).real.us(features) + row("node").real.fixed_us;
  const CostRow& layout = row("layout");
  if (image && integer_image) us += layout.integer.us(features) + row("node").real.fixed_us;
  if (image && float_image) us += layout.real.us(features) + row("node").real.fixed_us;
  return us;
}

double CostModel::quantize(const SeenType& type, bool integer_image, bool float_image) const {
  return convert("quantize", type, integer_image, float_image);
}

double CostModel::dequantize(const SeenType& type, bool integer_image, bool float_image) const {
  return convert("dequantize", type, integer_image, float_image);
}

}  // namespace onnxpress
