// quant-dynamic: int8 weights, activations quantized while the model runs. Needs no data.
//
//   y = MatMul(x, w)  =>  xq, xs, xz = DynamicQuantizeLinear(x)
//                         y = Mul(Cast(MatMulInteger(xq, w8, xz, wz)), Mul(xs, ws))
//   Gemm   the same with w8 transposed when transB, then Add of the bias
//   Conv   the same with ConvInteger and uint8 weights (zero point 128, the form every runtime has), then the bias
//   LSTM   com.microsoft.DynamicQuantizeLSTM with int8 W and R
//
// One DynamicQuantizeLinear serves all readers of a value. Weights are symmetric, s = max|w| / 127 per output channel.
// These are the exact shapes that ONNX Runtime fuses into MatMulIntegerToFloat and DynamicQuantizeMatMul.
// Source: ONNX DynamicQuantizeLinear, MatMulInteger, ConvInteger; ONNX Runtime contrib operators.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/parallel.h"
#include "ir/edit.h"
#include "ir/rewriters.h"
#include "pass/pass.h"
#include "pass/weights.h"
#include "quant/target.h"
#include "quant/weight.h"

namespace onnxpress {
namespace {

struct Options {
  bool per_channel = true;
  Target target = Target::automatic;
  std::int64_t min_elements = 1024;
};

constexpr std::uint64_t kInFlight = std::uint64_t{512} << 20;  // bytes of weights in work without --memory-limit

// A weight in integer form: names of the initializers, filled in when it has been quantized.
struct WeightNames {
  std::string codes, scale, zero_point;
};

struct Target {
  Node node;
  std::vector<std::size_t> weights;  // indices of WeightJobs: one, or W and R of an LSTM
};

// Bodies of a function count: what they capture is defined there.
bool in_function(const Node& node) {
  const Graph* graph = &node.graph();
  while (graph->parent() != nullptr) graph = graph->parent();
  return graph->kind() == Graph::Kind::function;
}

bool is_candidate(const Node& node) {
  return node.is("MatMul") || node.is("Gemm") || node.is("Conv") || node.is("LSTM");
}

class QuantDynamic final : public Pass {
 public:
  explicit QuantDynamic(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("per_channel", &Options::per_channel, "one weight scale per output channel")
        .add("target", &Options::target, target_choices(),
             "what the model will run on; auto is this machine. On ort-x86 (no VNNI) scales of weights whose products "
             "could saturate are raised")
        .add("min_elements", &Options::min_elements,
             "weights with fewer elements stay float: the added nodes would cost more", {0, {}});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (model.opset() < 11) {
      context.journal.warning(fmt::format("DynamicQuantizeLinear needs opset 11, the model has {}", model.opset()));
      return Outcome{};
    }
    context.journal.note("target: " + target_name(resolve(options_.target)));
    Work work(model, options_);
    for (const Graph* graph : model.graphs())
      for (const Node& node : graph->nodes())
        if (is_candidate(node) && context.selected(node)) {
          const std::string refusal = work.consider(node);
          if (!refusal.empty()) context.skipped(node, refusal);
        }
    if (work.targets.empty()) return Outcome{};
    OP_TRY(work.quantize_weights(context));
    OP_TRY(work.rewrite(context));
    OP_LET(const bool changed, work.rewriters.commit());
    if (work.uses_contrib && model.opset("com.microsoft") == 0) model.set_opset("com.microsoft", 1);
    return Outcome{changed};
  }

 private:
  // The state of one run.
  struct Work {
    Work(Model& m, const Options& o) : model(m), options(o), rewriters(m) {}

    // Takes the node as a target, or says why not.
    std::string consider(const Node& node) {
      if (in_function(node)) return "it is inside a function, which cannot hold weights";
      if (node.is("LSTM")) return consider_lstm(node);
      const auto type = node.graph().constant_type(node.input(1));
      if (!type) return not_constant_reason(node, 1);
      if (const std::string refusal = weight_refusal(*type); !refusal.empty()) return refusal;
      if (node.graph().is_constant(node.input(0))) return "its data input is a constant: run fold-constants";
      WeightJob job{.reader = &node.graph(), .name = std::string(node.input(1)), .per_channel = options.per_channel};
      job.avoid_saturation = saturates(options.target) && !node.is("Conv");  // u8 x u8 cannot saturate
      if (node.is("Conv")) {
        if (!node.input(2).empty() && !node.graph().is_constant(node.input(2))) return "its bias is not a constant";
        job.dtype = DType::u8;
      } else {
        if (type->second.size() != 2) return "its weight is not a matrix";
        if (node.attr_int("transA", 0) != 0) return "transA has no integer form";
        if (node.attr_float("beta", 1) != 1 && !node.input(2).empty() && !node.graph().is_constant(node.input(2)))
          return "its C is not a constant and beta is not 1";
        job.transpose = node.attr_int("transB", 0) != 0;
        job.channel_axis = job.transpose ? 0 : 1;
        if (node.is("Gemm")) job.factor = node.attr_float("alpha", 1);
      }
      targets.push_back({node, {job_of(std::move(job))}});
      return {};
    }

    std::string consider_lstm(const Node& node) {
      if (node.attr_int("layout", 0) != 0) return "layout=1 has no integer form";
      std::vector<std::size_t> weights;
      for (const std::size_t slot : {1UZ, 2UZ}) {
        const auto type = node.graph().constant_type(node.input(slot));
        if (!type) return not_constant_reason(node, slot);
        if (const std::string refusal = weight_refusal(*type); !refusal.empty()) return refusal;
        if (type->second.size() != 3) return "its weights are not [directions, 4 * hidden, inputs]";
      }
      for (const std::size_t slot : {1UZ, 2UZ}) {
        const Dims dims = node.graph().constant_type(node.input(slot))->second;
        WeightJob job{.reader = &node.graph(), .name = std::string(node.input(slot))};
        job.avoid_saturation = saturates(options.target);
        job.view = {dims[0] * dims[1], dims[2]};
        job.transpose = true;
        job.blocks = dims[0];
        weights.push_back(job_of(std::move(job)));
      }
      targets.push_back({node, std::move(weights)});
      uses_contrib = true;
      return {};
    }

    std::string weight_refusal(const std::pair<DType, Dims>& type) const {
      if (type.first != DType::f32) return fmt::format("its weight is {}, not float", dtype_name(type.first));
      const auto elements = element_count(type.second).value_or(0);
      if (elements == 0) return "its weight is empty";
      if (elements < static_cast<std::uint64_t>(options.min_elements))
        return fmt::format("its weight has {} elements, fewer than min_elements={}", elements, options.min_elements);
      return {};
    }

    // One job per weight tensor and form, however many nodes read it.
    std::size_t job_of(WeightJob job) {
      const auto key = std::tuple(job.reader->scope_of(job.name), job.name, job.dtype, job.transpose, job.factor);
      const auto [place, fresh] = known.try_emplace(key, jobs.size());
      if (fresh) jobs.push_back(std::move(job));
      return place->second;
    }

    Status quantize_weights(PassContext& context) {
      std::uint64_t largest = 0;
      for (const WeightJob& job : jobs) largest = std::max(largest, peak_bytes(job));
      const std::uint64_t budget = context.memory_limit == 0 ? kInFlight : context.memory_limit;
      names.resize(jobs.size());
      sqnr_db.resize(jobs.size());
      return execute_and_commit<QuantizedWeight>(
          jobs.size(), jobs_within(context.jobs, largest, budget),
          [&](std::size_t i) { return quantize_weight(jobs[i]); },
          [&](std::size_t i, QuantizedWeight weight) -> Status {
            add_initializers(i, std::move(weight));
            return {};
          });
    }

    // Beside the float weight, in the scope that defines it.
    void add_initializers(std::size_t i, QuantizedWeight weight) {
      const WeightJob& job = jobs[i];
      Rewriter& rewriter = rewriters.of(*job.reader->scope_of(job.name));
      const auto add = [&](const char* suffix, Tensor value) {
        std::string name = rewriter.fresh_value(job.name + suffix);
        rewriter.add_initializer(name, std::move(value));
        return name;
      };
      const bool per_channel = job.per_channel;
      const bool is_conv = job.dtype == DType::u8, is_lstm = !job.view.empty();
      Tensor scale = weight.scale_tensor(per_channel), zero_point = weight.zero_point_tensor(per_channel && !is_conv);
      const auto channels = static_cast<std::int64_t>(weight.scales.size());
      if (is_lstm) {
        for (Tensor* tensor : {&scale, &zero_point}) tensor->reshape({job.blocks, channels / job.blocks});
        // Also with one direction: the runtime looks at the third dimension and dies when there is none.
        weight.codes.reshape({job.blocks, job.view[1], channels / job.blocks});
      } else if (is_conv && per_channel) {
        scale.reshape(channel_dims(job));
      }
      names[i] = {add("_quantized", std::move(weight.codes)), add("_scale", std::move(scale)),
                  add("_zero_point", std::move(zero_point))};
      sqnr_db[i] = weight.sqnr_db;
    }

    // [M, 1, 1] for a 2-D convolution: broadcasts along the channels of [N, M, H, W].
    static Dims channel_dims(const WeightJob& job) {
      Dims dims = job.reader->constant_type(job.name)->second;
      dims.erase(dims.begin() + 1);
      std::fill(dims.begin() + 1, dims.end(), 1);
      return dims;
    }

    Status rewrite(PassContext& context) {
      for (const Target& target : targets) {
        const Node& node = target.node;
        Rewriter& rewriter = rewriters.of(node.graph());
        if (node.is("LSTM")) {
          OP_TRY(rewrite_lstm(target, rewriter));
        } else {
          OP_TRY(rewrite_linear(target, rewriter));
        }
        rewriter.erase(node);
        context.done(node, fmt::format("{} weight (SQNR {:.1f} dB), activations quantized at run time",
                                       node.is("Conv") ? "uint8" : "int8", sqnr_db[target.weights.front()]));
      }
      drop_float_weights();
      return {};
    }

    struct Activation {
      std::string codes, scale, zero_point;
    };
    // DynamicQuantizeLinear before the first reader; later readers in the same scope share it.
    const Activation& activation(const Node& reader, Rewriter& rewriter) {
      const std::string value(reader.input(0));
      const auto [place, fresh] = activations.try_emplace({&reader.graph(), value});
      Activation& out = place->second;
      if (fresh) {
        out = {rewriter.fresh_value(value + "_quantized"), rewriter.fresh_value(value + "_scale"),
               rewriter.fresh_value(value + "_zero_point")};
        rewriter.insert_before(reader, {.op = "DynamicQuantizeLinear",
                                        .inputs = {value},
                                        .outputs = {out.codes, out.scale, out.zero_point},
                                        .name = rewriter.fresh_node(value + "_DynamicQuantizeLinear")});
      }
      return out;
    }

    Status rewrite_linear(const Target& target, Rewriter& rewriter) {
      const Node& node = target.node;
      const WeightNames& weight = names[target.weights.front()];
      const Activation x = activation(node, rewriter);
      const std::string base = node.name().empty() ? std::string(node.output(0)) : std::string(node.name());
      const auto add = [&](const char* op, std::vector<std::string> inputs, std::string output,
                           std::vector<std::pair<std::string, AttributeValue>> attributes = {}) {
        rewriter.insert_before(node, {.op = op,
                                      .inputs = std::move(inputs),
                                      .outputs = {output},
                                      .attributes = std::move(attributes),
                                      .name = rewriter.fresh_node(base + "_" + op)});
        return output;
      };
      const auto fresh = [&](const char* suffix) { return rewriter.fresh_value(std::string(node.output(0)) + suffix); };
      const bool is_conv = node.is("Conv");
      std::vector<std::pair<std::string, AttributeValue>> attributes;
      if (is_conv) {
        OP_LET(attributes, node.attributes());
      }
      const std::string sum =
          add(is_conv ? "ConvInteger" : "MatMulInteger", {x.codes, weight.codes, x.zero_point, weight.zero_point},
              fresh("_int32"), std::move(attributes));
      const std::string real = add("Cast", {sum}, fresh("_cast"), {{"to", std::int64_t{1}}});
      const std::string scale = add("Mul", {x.scale, weight.scale}, fresh("_scale"));
      const std::string output(node.output(0));
      if (node.input(2).empty()) {
        add("Mul", {real, scale}, output);
        return {};
      }
      const std::string scaled = add("Mul", {real, scale}, fresh("_scaled"));
      OP_LET(const std::string bias, bias_of(target, rewriter));
      add("Add", {scaled, bias}, output);
      return {};
    }

    // What is added behind the scaling: C of a Gemm times beta, or the bias of a Conv along its channels.
    Result<std::string> bias_of(const Target& target, Rewriter& rewriter) const {
      const Node& node = target.node;
      std::string name(node.input(2));
      const float beta = node.is("Gemm") ? node.attr_float("beta", 1) : 1;
      if (!node.is("Conv") && beta == 1) return name;
      OP_LET(std::optional<Tensor> value, node.graph().constant(name));
      if (node.is("Conv")) value->reshape(channel_dims(jobs[target.weights.front()]));
      if (beta != 1) {
        OP_LET(value, convert(value->view(), DType::f32));
        for (float& element : value->as_mutable<float>()) element *= beta;
      }
      std::string fresh = rewriter.fresh_value(name + (node.is("Conv") ? "_per_channel" : "_times_beta"));
      rewriter.add_initializer(fresh, std::move(*value));
      return fresh;
    }

    Status rewrite_lstm(const Target& target, Rewriter& rewriter) {
      const Node& node = target.node;
      const WeightNames &w = names[target.weights[0]], &r = names[target.weights[1]];
      NodeSpec spec{.op = "DynamicQuantizeLSTM",
                    .inputs = node.inputs(),
                    .outputs = node.outputs(),
                    .domain = "com.microsoft",
                    .name = std::string(node.name())};
      OP_LET(spec.attributes, node.attributes());
      std::erase_if(spec.attributes, [](const auto& attribute) { return attribute.first == "layout"; });
      spec.inputs.resize(8);  // X, W, R, B, sequence_lens, initial_h, initial_c, P
      spec.inputs[1] = w.codes;
      spec.inputs[2] = r.codes;
      for (const std::string& extra : {w.scale, w.zero_point, r.scale, r.zero_point}) spec.inputs.push_back(extra);
      rewriter.insert_before(node, std::move(spec));
      return {};
    }

    // Float weights and rewritten biases that only the replaced nodes read.
    void drop_float_weights() {
      const auto replaced = [&](const Use& use) {
        return std::ranges::any_of(targets, [&](const Target& t) { return t.node == use.node; }) &&
               (use.slot == 1 || use.slot == 2) && !keeps_input(use);
      };
      std::vector<std::pair<Graph*, std::string>> dropped;
      for (const Target& target : targets)
        for (const std::size_t slot : {1UZ, 2UZ}) {
          const std::string name(target.node.input(slot));
          Graph* scope = name.empty() ? nullptr : target.node.graph().scope_of(name);
          if (scope == nullptr || std::ranges::contains(dropped, std::pair(scope, name))) continue;
          if (!is_private_constant(*scope, name, replaced)) continue;
          drop_constant(rewriters.of(*scope), *scope, name);
          dropped.emplace_back(scope, name);
        }
    }
    // The Add behind a Gemm reads the same bias.
    static bool keeps_input(const Use& use) {
      return use.slot == 2 && use.node.is("Gemm") && use.node.attr_float("beta", 1) == 1;
    }

    Model& model;
    const Options& options;
    Rewriters rewriters;
    std::vector<Target> targets;
    std::vector<WeightJob> jobs;
    std::map<std::tuple<Graph*, std::string, DType, bool, float>, std::size_t> known;
    std::vector<WeightNames> names;  // per job
    std::vector<float> sqnr_db;      // per job
    std::map<std::pair<Graph*, std::string>, Activation> activations;
    bool uses_contrib = false;
  };

  Options options_;
};

}  // namespace

PassInfo info_quant_dynamic() {
  return describe_pass<QuantDynamic, Options>(
      {.summary = "int8 weights, activations quantized while the model runs (dynamic quantization); needs no data",
       .description =
           "y = MatMul(x, w)  =>  y = MatMulInteger(DynamicQuantizeLinear(x), w8) * (x_scale * w_scale)\n\n"
           "MatMul, Gemm, Conv and LSTM with constant weights, also inside If, Loop and Scan. Weights are symmetric "
           "with one scale per output channel. The nodes are those that ONNX Runtime fuses into one kernel. LSTM "
           "becomes com.microsoft.DynamicQuantizeLSTM, which only ONNX Runtime has; leave it float for other runtimes "
           "with skip=op:LSTM. Products of two activations and embeddings stay float.",
       .example = "quant-dynamic{skip=op:LSTM}",
       .references = {"ONNX DynamicQuantizeLinear, MatMulInteger, ConvInteger",
                      "ONNX Runtime com.microsoft.DynamicQuantizeLSTM"},
       .lossy = true,
       .quantizes = true});
}

}  // namespace onnxpress
