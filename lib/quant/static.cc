#include "quant/static.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "ir/edit.h"
#include "quant/qdq.h"
#include "quant/static_plan.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kInFlight = std::uint64_t{512} << 20;  // bytes of weights in work without --memory-limit

// A kernel with what its emission needs.
struct Kernel {
  const StaticNode* item = nullptr;
  std::size_t weight = 0;  // index of its WeightJob
  float input_scale = 1;
  std::vector<float> bias = {};  // one per output channel; empty when there is none
};

std::int64_t channel_axis(const Node& node) {
  if (node.is("Conv")) return 0;
  if (node.is("Gemm")) return node.attr_int("transB", 0) != 0 ? 0 : 1;
  return 1;
}

// One input channel per group: the runtime's depthwise kernel multiplies in 16 bits and cannot saturate.
bool is_depthwise(const Node& node) {
  const auto weight = node.graph().constant_type(node.input(1));
  return node.is("Conv") && weight->second.size() > 2 && weight->second[1] == 1 && node.attr_int("group", 1) > 1;
}

class StaticQuantizer {
 public:
  explicit StaticQuantizer(const StaticSettings& settings) : settings_(settings) {}

  Result<bool> run(Model& model, PassContext& context) const {
    if (model.opset() < 10) {
      context.journal.warning(fmt::format("QuantizeLinear needs opset 10, the model has {}", model.opset()));
      return false;
    }
    if (settings_.per_channel && model.opset() < 13)
      context.journal.warning(fmt::format(
          "one scale per weight tensor: per-channel scales need opset 13, the model has {}", model.opset()));
    context.journal.note("target: " + target_name(resolve(settings_.target)));
    const StaticPlan plan = plan_static(model, context);
    if (plan.nodes.empty()) return false;
    OP_LET(const auto params, measure(model, plan, context));

    std::vector<WeightJob> jobs;
    OP_LET(const std::vector<Kernel> kernels, plan_weights(model, plan, params, jobs));
    Rewriter rewriter(model.main());
    QdqWriter writer(model.main(), rewriter);
    quantize_values(plan, params, writer);
    OP_TRY(quantize_kernels(kernels, jobs, writer, rewriter, context));
    for (const StaticNode& item : plan.nodes) {
      if (item.role != StaticRole::kernel) context.done(item.node, "runs on 8-bit codes between integer nodes");
    }
    drop_float_constants(model.main(), kernels, rewriter);
    return rewriter.commit();
  }

 private:
  using Params = std::map<std::string, AffineParams>;  // by root value

  Result<Params> measure(const Model& model, const StaticPlan& plan, PassContext& context) const {
    Params params;
    std::vector<ValueRef> taps;
    for (const std::string& value : plan.values) {
      const std::string root = plan.root(value);
      const Node producer = model.main().producer(root);
      if (producer && producer.is("Sigmoid")) {
        params[root] = {1.0F / 256, 0};  // its range is known
      } else if (!std::ranges::contains(taps, root, &ValueRef::value)) {
        taps.push_back({root});
      }
    }
    OP_LET(const RangeTable ranges, measure_ranges(context, model, taps, settings_.ranges, settings_.known));
    for (const auto& [value, range] : ranges) params[value] = choose_affine(range.min, range.max, DType::u8, false);
    return params;
  }

  bool per_channel(const Model& model) const { return settings_.per_channel && model.opset() >= 13; }

  // The bias as floats, one per channel, beta included.
  static Result<std::vector<float>> read_bias(const Node& node, std::size_t channels) {
    if (node.input(2).empty()) return std::vector<float>{};
    OP_LET(const auto tensor, node.graph().constant(node.input(2)));
    const auto values = tensor->as<float>();
    std::vector<float> bias(values.begin(), values.end());
    if (bias.size() == 1) bias.resize(channels, bias.front());
    const float beta = node.is("Gemm") ? node.attr_float("beta", 1) : 1;
    for (float& value : bias) {
      value *= beta;
      if (!std::isfinite(value)) return fail(Code::bad_input, "node '{}': its bias is not finite", node.label());
    }
    return bias;
  }

  // One job per weight tensor and layout, however many nodes read it. The int32 bias must fit: its scale is
  // s_x * s_w, so s_w must be at least 2 |b| / (2^32 - 2) / s_x.
  Result<std::vector<Kernel>> plan_weights(const Model& model, const StaticPlan& plan, const Params& params,
                                           std::vector<WeightJob>& jobs) const {
    std::vector<Kernel> kernels;
    std::map<std::tuple<std::string, std::int64_t, float>, std::size_t> known;
    for (const StaticNode& item : plan.nodes) {
      if (item.role != StaticRole::kernel) continue;
      const Node& node = item.node;
      const std::string weight(node.input(1));
      const std::int64_t axis = channel_axis(node);
      const float alpha = node.is("Gemm") ? node.attr_float("alpha", 1) : 1;
      const auto [place, fresh] = known.try_emplace({weight, axis, alpha}, jobs.size());
      if (fresh) {
        WeightJob job{.reader = &node.graph(), .name = weight, .channel_axis = axis, .factor = alpha};
        job.per_channel = per_channel(model);
        jobs.push_back(std::move(job));
      }
      // One reader that could saturate is enough.
      if (saturates(settings_.target) && !is_depthwise(node)) jobs[place->second].avoid_saturation = true;
      Kernel kernel{.item = &item, .weight = place->second};
      kernel.input_scale = params.at(plan.root(std::string(node.input(0)))).scale;
      const auto type = node.graph().constant_type(weight);
      const auto channels = static_cast<std::size_t>(type->second[static_cast<std::size_t>(axis)]);
      OP_LET(kernel.bias, read_bias(node, channels));
      std::vector<double>& least = jobs[kernel.weight].least_scale;
      least.resize(per_channel(model) ? channels : 1);
      for (std::size_t c = 0; c < kernel.bias.size(); ++c) {
        double& scale = least[least.size() == 1 ? 0 : c];
        scale = std::max(scale, 1.0001 * 2 * std::abs(kernel.bias[c]) / 4294967294.0 / kernel.input_scale);
      }
      kernels.push_back(std::move(kernel));
    }
    return kernels;
  }

  static void quantize_values(const StaticPlan& plan, const Params& params, QdqWriter& writer) {
    std::map<std::string, bool> fused;  // made by an integer node, so every reader takes the dequantized form
    for (const StaticNode& item : plan.nodes)
      if (item.quantize_output) fused[item.output] = true;
    for (const std::string& value : plan.values) {
      const std::string root = plan.root(value);
      writer.quantize(value, root, params.at(root), fused.contains(value));
    }
    for (const StaticNode& item : plan.nodes)
      for (const std::size_t slot : item.data_slots)
        if (!fused.contains(std::string(item.node.input(slot)))) writer.read(item.node, slot);
  }

  Status quantize_kernels(const std::vector<Kernel>& kernels, const std::vector<WeightJob>& jobs, QdqWriter& writer,
                          Rewriter& rewriter, PassContext& context) const {
    std::uint64_t largest = 0;
    for (const WeightJob& job : jobs) largest = std::max(largest, peak_bytes(job));
    const std::uint64_t budget = context.memory_limit == 0 ? kInFlight : context.memory_limit;
    struct Written {
      std::string value;
      std::vector<float> scales;
      float sqnr_db = 0;
    };
    std::vector<Written> written(jobs.size());
    OP_TRY(execute_and_commit<QuantizedWeight>(
        jobs.size(), jobs_within(context.jobs, largest, budget),
        [&](std::size_t i) { return quantize_weight(jobs[i]); },
        [&](std::size_t i, QuantizedWeight weight) -> Status {
          const auto reader = std::ranges::find(kernels, i, &Kernel::weight);
          written[i].scales = weight.scales;
          written[i].sqnr_db = weight.sqnr_db;
          written[i].value = writer.weight(reader->item->node, jobs[i].name, std::move(weight), jobs[i].axis());
          return {};
        }));
    for (const Kernel& kernel : kernels) {
      const Node& node = kernel.item->node;
      const Written& weight = written[kernel.weight];
      rewriter.set_input(node, 1, weight.value);
      if (!kernel.bias.empty()) quantize_bias_of(kernel, weight.scales, writer, rewriter);
      if (node.is("Gemm")) {
        for (const char* key : {"alpha", "beta"})
          if (node.has_attr(key)) rewriter.remove_attribute(node, key);
      }
      context.done(node, fmt::format("int8 weight ({} scale{}, SQNR {:.1f} dB), uint8 activations{}",
                                     weight.scales.size(), weight.scales.size() == 1 ? "" : "s", weight.sqnr_db,
                                     kernel.item->quantize_output ? "" : ", float result"));
    }
    return {};
  }

  static void quantize_bias_of(const Kernel& kernel, const std::vector<float>& weight_scales, QdqWriter& writer,
                               Rewriter& rewriter) {
    const Node& node = kernel.item->node;
    std::vector<float> scales;
    for (const float scale : weight_scales) scales.push_back(kernel.input_scale * scale);
    Tensor codes(DType::i32, {static_cast<std::int64_t>(kernel.bias.size())});
    const auto out = codes.as_mutable<std::int32_t>();
    for (std::size_t c = 0; c < kernel.bias.size(); ++c)
      quantize_bias(std::span(kernel.bias).subspan(c, 1), scales[scales.size() == 1 ? 0 : c], out.subspan(c, 1));
    const std::string value = writer.bias(node, std::string(node.input(2)), std::move(codes), scales);
    rewriter.set_input(node, 2, value);
  }

  // The float weights and biases that only the rewritten nodes read.
  static void drop_float_constants(const Graph& graph, const std::vector<Kernel>& kernels, Rewriter& rewriter) {
    const auto switched = [&](const Use& use) {
      return use.slot > 0 && std::ranges::any_of(kernels, [&](const Kernel& k) { return k.item->node == use.node; });
    };
    std::vector<std::string> dropped;
    for (const Kernel& kernel : kernels)
      for (const std::size_t slot : {1UZ, 2UZ}) {
        const std::string value(kernel.item->node.input(slot));
        if (value.empty() || std::ranges::contains(dropped, value)) continue;
        if (!is_private_constant(graph, value, switched)) continue;
        drop_constant(rewriter, graph, value);
        dropped.push_back(value);
      }
  }

  const StaticSettings& settings_;
};

}  // namespace

Result<bool> quantize_static(Model& model, PassContext& context, const StaticSettings& settings) {
  return StaticQuantizer(settings).run(model, context);
}

}  // namespace onnxpress
