// quant-dynamic: int8 weights, activations quantized while the model runs. Needs no data.
//
//   y = MatMul(x, w)  =>  xq, xs, xz = DynamicQuantizeLinear(x)
//                         y = Mul(Cast(MatMulInteger(xq, w8, xz, wz)), Mul(xs, ws))
//   Gemm   the same with w8 transposed when transB, then Add of the bias
//   Conv   the same with ConvInteger and uint8 weights (zero point 128, the form every runtime has), then the bias
//   LSTM   com.microsoft.DynamicQuantizeLSTM with int8 W and R
//   GRU    W = Mul(Cast(W8), scale): no runtime has an integer GRU, so only the file shrinks; runtimes fold the weight
//   to
//          float at load. The same for RNN, and for an LSTM that DynamicQuantizeLSTM cannot take
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
#include "ir/upconvert.h"
#include "pass/pass.h"
#include "pass/weights.h"
#include "quant/dynamic_writer.h"
#include "quant/target.h"
#include "quant/weight.h"
#include "quant/weight_store.h"

namespace onnxpress {
namespace {

struct Options {
  bool per_channel = true;
  Target target = Target::automatic;
  std::int64_t min_elements = 1024;
};

constexpr std::int64_t kOpset = 11;  // DynamicQuantizeLinear

struct QuantTarget {
  Node node;
  std::vector<std::size_t> weights;  // indices of WeightJobs: one, or W and R of a recurrent node
  bool stored = false;               // the node stays, its weights are computed from codes
};

// Bodies of a function count: what they capture is defined there.
bool in_function(const Node& node) {
  const Graph* graph = &node.graph();
  while (graph->parent() != nullptr) graph = graph->parent();
  return graph->kind() == Graph::Kind::function;
}

bool is_recurrent(const Node& node) { return node.is("LSTM") || node.is("GRU") || node.is("RNN"); }

bool is_candidate(const Node& node) {
  return node.is("MatMul") || node.is("Gemm") || node.is("Conv") || is_recurrent(node);
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
    context.journal.note("target: " + target_name(resolve(options_.target)));
    Work work(model, options_);
    for (const Graph* graph : model.graphs())
      for (const Node& node : graph->nodes())
        if (is_candidate(node) && context.selected(node)) {
          const std::string refusal = work.consider(node);
          if (!refusal.empty()) context.skipped(node, refusal);
        }
    if (work.targets.empty() || !raise_opset(model, context)) return Outcome{};
    OP_TRY(work.quantize_weights(context));
    OP_TRY(work.rewrite(context));
    OP_LET(const bool changed, work.rewriters.commit());
    if (work.uses_contrib && model.opset("com.microsoft") == 0) model.set_opset("com.microsoft", 1);
    return Outcome{changed};
  }

 private:
  // To the oldest that has the operators. False, with a warning, when that cannot be.
  static bool raise_opset(Model& model, PassContext& context) {
    const std::int64_t before = model.opset();
    const auto raised = upconvert(model, kOpset);
    if (!raised)
      context.journal.warning(fmt::format("DynamicQuantizeLinear needs opset {}: {}", kOpset, raised.error().text()));
    if (raised && *raised) context.journal.note(fmt::format("opset {} to {}", before, kOpset));
    return raised.has_value();
  }

  // The state of one run.
  struct Work {
    Work(Model& m, const Options& o) : model(m), options(o), rewriters(m), writer(rewriters), store(m, rewriters) {}

    // Takes the node as a target, or says why not.
    std::string consider(const Node& node) {
      if (in_function(node)) return "it is inside a function, which cannot hold weights";
      if (is_recurrent(node)) return consider_recurrent(node);
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

    std::string consider_recurrent(const Node& node) {
      for (const std::size_t slot : {1UZ, 2UZ}) {
        const auto type = node.graph().constant_type(node.input(slot));
        if (!type) return not_constant_reason(node, slot);
        if (const std::string refusal = weight_refusal(*type); !refusal.empty()) return refusal;
        if (type->second.size() != 3) return "its weights are not [directions, gates * hidden, inputs]";
      }
      const bool stored = !node.is("LSTM") || node.attr_int("layout", 0) != 0 ||
                          resolve(options.target) == Target::generic ||
                          node.graph().constant_type(node.input(1))->first != DType::f32;
      std::vector<std::size_t> weights;
      for (const std::size_t slot : {1UZ, 2UZ}) {
        WeightJob job{.reader = &node.graph(), .name = std::string(node.input(slot))};
        if (stored) {
          const std::string refusal = foreign_reader(*job.reader->scope_of(job.name), job.name, recurrent_readers(job));
          if (!refusal.empty()) return refusal;
        }
        const Dims dims = node.graph().constant_type(job.name)->second;
        job.avoid_saturation = !stored && saturates(options.target);
        job.view = {dims[0] * dims[1], dims[2]};
        job.transpose = !stored;
        job.blocks = stored ? 1 : dims[0];
        weights.push_back(job_of(std::move(job)));
      }
      targets.push_back({node, std::move(weights), stored});
      uses_contrib = uses_contrib || !stored;
      return {};
    }

    // All that read the weight in the same way: they share what becomes of it.
    static std::vector<Use> recurrent_readers(const WeightJob& job) {
      std::vector<Use> readers;
      for (const Use& use : job.reader->scope_of(job.name)->uses(job.name))
        if (use.node && is_recurrent(use.node) && (use.slot == 1 || use.slot == 2)) readers.push_back(use);
      return readers;
    }

    std::string weight_refusal(const std::pair<DType, Dims>& type) const {
      if (type.first != DType::f32 && type.first != DType::f16 && type.first != DType::bf16)
        return fmt::format("its weight is {}, not float", dtype_name(type.first));
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
      if (fresh) {
        dtypes.push_back(job.reader->constant_type(job.name)->first);
        jobs.push_back(std::move(job));
      }
      return place->second;
    }

    Status quantize_weights(PassContext& context) {
      std::uint64_t largest = 0;
      for (const WeightJob& job : jobs) largest = std::max(largest, peak_bytes(job));
      names.resize(jobs.size());
      sqnr_db.resize(jobs.size());
      return execute_and_commit<QuantizedWeight>(
          jobs.size(), weight_jobs(context.jobs, largest, context.memory_limit),
          [&](std::size_t i) { return quantize_weight(jobs[i]); },
          [&](std::size_t i, QuantizedWeight weight) -> Status {
            sqnr_db[i] = weight.sqnr_db;
            if (!jobs[i].view.empty() && !jobs[i].transpose)
              return store.replace(jobs[i], std::move(weight), WeightForm::store);
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
    }

    // [M, 1, 1] for a 2-D convolution: broadcasts along the channels of [N, M, H, W].
    static Dims channel_dims(const WeightJob& job) {
      Dims dims = job.reader->constant_type(job.name)->second;
      dims.erase(dims.begin() + 1);
      std::fill(dims.begin() + 1, dims.end(), 1);
      return dims;
    }

    Status rewrite(PassContext& context) {
      for (const QuantTarget& target : targets) {
        const Node& node = target.node;
        const std::size_t first = target.weights.front();
        const char* how = "activations quantized at run time";
        if (target.stored) {
          how = "folded to float at load: a smaller file, memory and speed as before";
        } else if (node.is("LSTM")) {
          OP_TRY(writer.lstm(node, names[first], names[target.weights.back()]));
        } else {
          const Dims bias_dims = node.is("Conv") ? channel_dims(jobs[first]) : Dims{};
          OP_TRY(writer.linear(node, names[first], dtypes[first], bias_dims));
        }
        context.done(node, fmt::format("{} weight (SQNR {:.1f} dB), {}", node.is("Conv") ? "uint8" : "int8",
                                       sqnr_db[first], how));
      }
      drop_float_weights();
      return {};
    }

    // Float weights and rewritten biases that only the replaced nodes read.
    void drop_float_weights() {
      const auto replaced = [&](const Use& use) {
        return std::ranges::any_of(targets, [&](const auto& t) { return t.node == use.node && !t.stored; }) &&
               (use.slot == 1 || use.slot == 2) && !keeps_input(use);
      };
      std::vector<std::pair<Graph*, std::string>> dropped;
      for (const QuantTarget& target : targets)
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
    DynamicWriter writer;
    WeightStore store;
    std::vector<QuantTarget> targets;
    std::vector<WeightJob> jobs;
    std::map<std::tuple<Graph*, std::string, DType, bool, float>, std::size_t> known;
    std::vector<DType> dtypes;         // per job: of the float weight
    std::vector<IntegerWeight> names;  // per job that is not stored
    std::vector<float> sqnr_db;        // per job
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
           "MatMul, Gemm, Conv and LSTM with constant weights, also inside If, Loop and Scan, in float or half "
           "precision. Weights are symmetric with one scale per output channel. The nodes are those that ONNX Runtime "
           "fuses into one kernel. LSTM becomes com.microsoft.DynamicQuantizeLSTM, which only ONNX Runtime has. No "
           "runtime has an integer GRU or RNN: their weights are stored as int8 and computed back by operators that "
           "runtimes fold at load, so the file shrinks and memory and speed stay; the same for an LSTM with layout=1 "
           "or "
           "target=generic. Products of two activations and embeddings stay float (see quant-weights). A model older "
           "than opset 11 is converted to it.",
       .example = "quant-dynamic{skip=op:LSTM}",
       .references = {"ONNX DynamicQuantizeLinear, MatMulInteger, ConvInteger",
                      "ONNX Runtime com.microsoft.DynamicQuantizeLSTM"},
       .lossy = true,
       .quantizes = true});
}

}  // namespace onnxpress
