#include "quant/static_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "ir/edit.h"
#include "quant/weight_store.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kLeastStored = 1024;  // elements; of less, the nodes that fold it back take as much room

// The bias as floats, one per channel, beta included.
Result<std::vector<float>> read_bias(const Node& node, std::size_t channels) {
  if (node.input(2).empty()) return std::vector<float>{};
  OP_LET(const auto tensor, node.graph().constant(node.input(2)));
  OP_LET(std::vector<float> bias, to_floats(tensor->view()));
  if (bias.size() == 1) bias.resize(channels, bias.front());
  const float beta = node.is("Gemm") ? node.attr_float("beta", 1) : 1;
  for (float& value : bias) {
    value *= beta;
    if (!std::isfinite(value)) return fail(Code::bad_input, "node '{}': its bias is not finite", node.label());
  }
  return bias;
}

std::size_t channels_of(const Node& node) {
  const auto type = node.graph().constant_type(node.input(1));
  return static_cast<std::size_t>(type->second[static_cast<std::size_t>(weight_channel_axis(node))]);
}

}  // namespace

// One job per weight tensor and layout, however many nodes in however many scopes read it.
Result<std::size_t> StaticWeights::job_of(const Node& node, WeightFormat format) {
  const std::string weight(node.input(1));
  const std::int64_t axis = weight_channel_axis(node);
  const float alpha = node.is("Gemm") ? node.attr_float("alpha", 1) : 1;
  Graph* home = node.graph().scope_of(weight);
  const auto [place, fresh] = known_.try_emplace({home, weight, axis, alpha, format}, jobs_.size());
  if (fresh) {
    WeightJob job{.reader = home, .name = weight, .channel_axis = axis, .factor = alpha};
    if (format == WeightFormat::uint8) job.dtype = DType::u8;
    if (format == WeightFormat::int4) job.dtype = DType::i4;
    job.per_channel = per_channel_;
    job.clip = settings_.clip;
    jobs_.push_back(std::move(job));
  }
  return place->second;
}

Status StaticWeights::add(const StaticNode& unit, float input_scale, WeightFormat format) {
  const Node& node = unit.node;
  OP_LET(const std::size_t index, job_of(node, format));
  WeightJob& job = jobs_[index];
  // One reader that could saturate is enough.
  if (saturates(settings_.target) && !is_depthwise(node)) job.avoid_saturation = true;
  Kernel kernel{.node = node, .quantize_output = unit.quantize_output, .job = index, .input_scale = input_scale};
  const std::size_t channels = channels_of(node);
  if (quantizes_bias()) {
    OP_LET(kernel.bias, read_bias(node, channels));
  }
  // The int32 bias must fit: its scale is s_x * s_w, so s_w must be at least 2 |b| / (2^32 - 2) / s_x.
  job.least_scale.resize(per_channel_ ? channels : 1);
  for (std::size_t c = 0; c < kernel.bias.size(); ++c) {
    double& scale = job.least_scale[job.least_scale.size() == 1 ? 0 : c];
    scale = std::max(scale, 1.0001 * 2 * std::abs(kernel.bias[c]) / 4294967294.0 / input_scale);
  }
  kernels_.push_back(std::move(kernel));
  return {};
}

Status StaticWeights::add_wide(const Node& node) {
  OP_LET(const std::size_t index, job_of(node, WeightFormat::int8));
  kernels_.push_back({.node = node, .wide = true, .job = index});
  return {};
}

bool StaticWeights::add_stored(const Node& node) {
  const std::string weight(node.input(1));
  Graph* home = node.graph().scope_of(weight);
  const auto type = node.graph().constant_type(weight);
  if (home == nullptr || !type || element_count(type->second).value_or(0) < kLeastStored) return false;
  const auto reads_it = [&](const Use& use) { return use.node == node && use.slot == 1; };
  if (!is_private_constant(*home, weight, reads_it)) return false;
  WeightJob job{.reader = home, .name = weight, .channel_axis = weight_channel_axis(node)};
  job.per_channel = per_channel_;
  job.clip = settings_.clip;
  stored_.emplace(jobs_.size(), node);
  jobs_.push_back(std::move(job));
  return true;
}

Status StaticWeights::write(QdqWriters& writers, Rewriters& rewriters, PassContext& context) const {
  std::uint64_t largest = 0;
  for (const WeightJob& job : jobs_) largest = std::max(largest, peak_bytes(job));
  WeightStore store(model_, rewriters);
  std::vector<Written> written(jobs_.size());
  OP_TRY(execute_and_commit<QuantizedWeight>(
      jobs_.size(), weight_jobs(context.jobs, largest, context.memory_limit),
      [&](std::size_t i) { return quantize_weight(jobs_[i]); },
      [&](std::size_t i, QuantizedWeight weight) -> Status {
        const WeightJob& job = jobs_[i];
        Graph& home = *job.reader;
        if (const auto stored = stored_.find(i); stored != stored_.end()) {
          context.done(stored->second, fmt::format("int8 weight (SQNR {:.1f} dB), computed in float: {}",
                                                   weight.sqnr_db, "integers do not pay"));
          return store.replace(job, std::move(weight), WeightForm::store);
        }
        written[i] = {{}, weight.scales, weight.sqnr_db, job.dtype};
        if (job.dtype == DType::i4) {  // two codes a byte in the file; the kernels read them as int8
          OP_LET(const std::string codes, store.unpack(home, job.name + "_quantized", weight.codes, DType::i8));
          weight.codes = Tensor(DType::i8, {0});
          weight.zero_points.assign(weight.scales.size(), 0);
          written[i].stored = writers.of(home).store(job.name, std::move(weight), job.axis(), codes);
        } else {
          written[i].stored = writers.of(home).store(job.name, std::move(weight), job.axis());
        }
        return {};
      }));
  for (const Kernel& kernel : kernels_) {
    const Node& node = kernel.node;
    const Written& weight = written[kernel.job];
    Rewriter& rewriter = rewriters.of(node.graph());
    rewriter.set_input(node, 1, writers.of(node.graph()).weight(node, weight.stored));
    write_bias(kernel, weight, writers, rewriters);
    if (node.is("Gemm") && node.has_attr("alpha")) rewriter.remove_attribute(node, "alpha");
    context.done(
        node, fmt::format("{} weight ({} scale{}, SQNR {:.1f} dB), {} activations{}", dtype_name(weight.dtype),
                          weight.scales.size(), weight.scales.size() == 1 ? "" : "s", weight.sqnr_db,
                          kernel.wide ? "16-bit"
                                      : dtype_name(activation_dtype(resolve(settings_.activations, settings_.target))),
                          kernel.quantize_output ? "" : ", float result"));
  }
  drop_float_constants(rewriters);
  return {};
}

void StaticWeights::write_bias(const Kernel& kernel, const Written& weight, QdqWriters& writers,
                               Rewriters& rewriters) const {
  const Node& node = kernel.node;
  if (kernel.bias.empty()) {
    // The kernel works in float now, whatever precision the model is in.
    const auto type = node.graph().constant_type(node.input(2));
    if (!type || type->first != DType::f16) return;
    const auto bias = node.graph().constant(node.input(2));
    if (!bias || !*bias) return;
    const auto values = to_floats((*bias)->view());
    if (!values) return;
    Rewriter& rewriter = rewriters.of(node.graph());
    const std::string name = rewriter.fresh_value(node.input(2));
    rewriter.add_initializer(name, Tensor::of_floats(type->second, *values));
    rewriter.set_input(node, 2, name);
    return;
  }
  std::vector<float> scales;
  for (const float scale : weight.scales) scales.push_back(kernel.input_scale * scale);
  Tensor codes(DType::i32, {static_cast<std::int64_t>(kernel.bias.size())});
  const auto out = codes.as_mutable<std::int32_t>();
  for (std::size_t c = 0; c < kernel.bias.size(); ++c)
    quantize_bias(std::span(kernel.bias).subspan(c, 1), scales[scales.size() == 1 ? 0 : c], out.subspan(c, 1));
  const std::string value = writers.of(node.graph()).bias(node, std::string(node.input(2)), std::move(codes), scales);
  Rewriter& rewriter = rewriters.of(node.graph());
  rewriter.set_input(node, 2, value);
  if (node.has_attr("beta")) rewriter.remove_attribute(node, "beta");
}

// The float weights and biases that only the rewritten nodes read.
void StaticWeights::drop_float_constants(Rewriters& rewriters) const {
  const auto switched = [&](const Use& use) {
    return use.node && std::ranges::any_of(kernels_, [&](const Kernel& kernel) {
             return kernel.node == use.node && (use.slot == 1 || (use.slot == 2 && !kernel.bias.empty()));
           });
  };
  std::vector<std::pair<const Graph*, std::string>> dropped;
  for (const Kernel& kernel : kernels_)
    for (const std::size_t slot : {1UZ, 2UZ}) {
      const std::string value(kernel.node.input(slot));
      if (value.empty()) continue;
      Graph* home = kernel.node.graph().scope_of(value);
      if (home == nullptr || std::ranges::contains(dropped, std::pair<const Graph*, std::string>(home, value)))
        continue;
      if (!is_private_constant(*home, value, switched)) continue;
      drop_constant(rewriters.of(*home), *home, value);
      dropped.emplace_back(home, value);
    }
}

}  // namespace onnxpress
