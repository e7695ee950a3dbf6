// quant-weights: weights of 8 or 4 bits, activations stay float. Needs no data.
//
//   y = MatMul(x, w)    =>  y = MatMulNBits(x, codes, scales)                  int4, ONNX Runtime: a 4-bit kernel
//   y = Gather(w, i)    =>  y = Mul(Cast(Gather(codes, i)), Gather(scales, i)) embeddings: only the rows in use
//   w                   =>  w = Mul(Cast(codes), scales)                       all others: folded to float at load
//   w                   =>  w = DequantizeLinear(codes, scales)                target=generic
//
// Round to nearest: s = max|w| / q_max per channel or block; clip=mse searches the s of least squared error. A table
// that an embedding and the last MatMul share is stored once.
// Sources: ONNX Runtime com.microsoft.MatMulNBits; clip=mse: Banner et al., "Post training 4-bit quantization of
// convolutional networks for rapid-deployment", 2019 (arXiv:1810.05723), by search instead of a model of the weights.
#include "pass/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/parallel.h"
#include "ir/edit.h"
#include "ir/rewriters.h"
#include "ir/upconvert.h"
#include "pass/pass.h"
#include "quant/packed_matrix.h"
#include "quant/target.h"
#include "quant/weight_store.h"

namespace onnxpress {
namespace {

enum class Bits { int8, int4 };
enum class Block : std::int64_t {
  automatic = -1,
  channel = 0,
  of16 = 16,
  of32 = 32,
  of64 = 64,
  of128 = 128,
  of256 = 256
};

struct Options {
  Bits weights = Bits::int8;
  Block block = Block::automatic;
  bool symmetric = true;
  WeightClip clip = WeightClip::minmax;
  Target target = Target::automatic;
  std::int64_t min_elements = 1024;
};

// How a node reads a weight.
enum class Role {
  none,    // not as a weight
  matrix,  // MatMul and Gemm, also through a Transpose
  rows,    // Gather: an embedding
  other,   // Conv, ConvTranspose, LSTM, GRU, RNN: kernels of float weights
};

// What becomes of one weight.
enum class Form { packed, rows, store, dequantize };

struct Weight {
  WeightJob job = {};
  Form form = Form::store;
  std::vector<Node> readers = {};
  float sqnr_db = 0;
};

bool is_recurrent(const Node& node) { return node.is("LSTM") || node.is("GRU") || node.is("RNN"); }

// A Transpose of a matrix that only MatMuls read, as their weight: the other half of tied embeddings.
bool is_matmul_transpose(const Node& node, const Dims& dims) {
  if (!node.is("Transpose") || dims.size() != 2 || node.graph().is_output(node.output(0))) return false;
  if (node.attr_ints("perm", {1, 0}) != std::vector<std::int64_t>{1, 0}) return false;
  const auto& uses = node.graph().uses(node.output(0));
  return !uses.empty() &&
         std::ranges::all_of(uses, [](const Use& u) { return u.node && u.node.is("MatMul") && u.slot == 1; });
}

// A table of rows, and not a part of one that is quantized already: scales are looked up beside codes of as many rows,
// pairs of 4-bit codes are two wide.
bool is_embedding(const Use& use, const Dims& dims) {
  constexpr std::int64_t kNarrow = 8;
  const Node& node = use.node;
  if (!node.is("Gather") || use.slot != 0 || node.attr_int("axis", 0) != 0) return false;
  if (dims.size() != 2 || dims[1] < kNarrow) return false;
  const Graph* scope = node.graph().scope_of(node.input(1));
  return scope == nullptr || std::ranges::none_of(scope->uses(node.input(1)), [&](const Use& other) {
           if (!other.node || !other.node.is("Gather") || other.slot != 1) return false;
           const auto table = other.node.graph().constant_type(other.node.input(0));
           return table && is_integer(table->first) && !table->second.empty() && table->second[0] == dims[0];
         });
}

Role role_of(const Use& use, const Dims& dims) {
  const Node& node = use.node;
  if (node.is("Gather")) return is_embedding(use, dims) ? Role::rows : Role::none;
  if (node.is("MatMul") || node.is("Gemm")) return use.slot == 1 && dims.size() == 2 ? Role::matrix : Role::none;
  if (is_matmul_transpose(node, dims)) return Role::matrix;
  if (node.is("Conv") || node.is("ConvTranspose")) return use.slot == 1 && dims.size() > 2 ? Role::other : Role::none;
  if (is_recurrent(node)) return (use.slot == 1 || use.slot == 2) && dims.size() == 3 ? Role::other : Role::none;
  return Role::none;
}

std::int64_t channel_axis(const Use& use) {
  if (use.node.is("MatMul")) return 1;
  if (use.node.is("Gemm")) return use.node.attr_int("transB", 0) != 0 ? 0 : 1;
  return use.node.is("ConvTranspose") ? 1 : 0;
}

// Whether MatMulNBits can take the node's place, weight aside.
bool is_plain_product(const Node& node) {
  const auto x = node.graph().type(node.input(0));
  if (x.dtype != DType::f32 || (x.shape && x.shape->size() < 2)) return false;
  return node.is("MatMul") ||
         (node.attr_float("alpha", 1) == 1 && node.attr_float("beta", 1) == 1 && node.attr_int("transA", 0) == 0);
}

class QuantWeights final : public Pass {
 public:
  explicit QuantWeights(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("weights", &Options::weights, {{"int8", Bits::int8}, {"int4", Bits::int4}}, "bits of a weight")
        .add("block", &Options::block,
             {{"auto", Block::automatic},
              {"channel", Block::channel},
              {"16", Block::of16},
              {"32", Block::of32},
              {"64", Block::of64},
              {"128", Block::of128},
              {"256", Block::of256}},
             "weights of a matrix, along the reduction, that share a scale; auto: 32 for int4, a channel for int8")
        .add("symmetric", &Options::symmetric, "zero is the middle of the codes; else every scale has its zero point")
        .add("clip", &Options::clip, {{"minmax", WeightClip::minmax}, {"mse", WeightClip::mse}},
             "scales reach to the largest weight, or as far as makes the squared error smallest")
        .add("target", &Options::target, target_choices(), "what the model will run on; auto is this machine")
        .add("min_elements", &Options::min_elements, "weights with fewer elements stay float", {0, {}});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override;

 private:
  Options options_;
};

// The state of one run.
class Run {
 public:
  Run(Model& model, PassContext& context, const Options& options)
      : model_(model), context_(context), options_(options), rewriters_(model), store_(model, rewriters_) {}

  void plan() {
    for (Graph* graph : model_.graphs()) {
      for (const Node& node : graph->nodes())
        for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
          const std::string name(node.input(slot));
          Graph* scope = name.empty() ? nullptr : graph->scope_of(name);
          if (scope == nullptr || !seen_.insert({scope, name}).second) continue;
          consider(*scope, name);
        }
    }
  }

  Result<bool> execute() {
    if (weights_.empty()) return false;
    raise_opset();
    std::uint64_t largest = 0;
    for (const Weight& weight : weights_) largest = std::max(largest, peak_bytes(weight.job));
    OP_TRY(execute_and_commit<QuantizedWeight>(
        weights_.size(), weight_jobs(context_.jobs, largest, context_.memory_limit),
        [&](std::size_t i) { return quantize_weight(weights_[i].job); },
        [&](std::size_t i, QuantizedWeight weight) { return write(weights_[i], std::move(weight)); }));
    OP_LET(const bool changed, rewriters_.commit());
    if (uses_contrib_ && model_.opset("com.microsoft") == 0) model_.set_opset("com.microsoft", 1);
    return changed;
  }

 private:
  bool generic() const { return resolve(options_.target) == Target::generic; }
  DType dtype() const { return options_.weights == Bits::int4 ? DType::i4 : DType::i8; }

  // Plans the weight, or journals at the nodes that read it as one why it stays float.
  void consider(Graph& scope, const std::string& name) {
    const auto type = scope.constant_type(name);
    if (!type || !is_float(type->first)) return;
    std::vector<Use> uses;
    for (const Use& use : scope.uses(name))
      if (use.node && role_of(use, type->second) != Role::none) uses.push_back(use);
    if (uses.empty()) return;
    std::string reason = refusal(scope, name, *type, uses);
    bool selected = true;
    for (const Use& use : uses) selected = context_.selected(use.node) && selected;
    if (!selected) reason = fmt::format("weight '{}' is also read by a node that is left out", name);
    if (reason.empty()) {
      add(scope, name, type->second, uses);
    } else {
      for (const Use& use : uses)
        if (context_.selected(use.node)) context_.skipped(use.node, reason);
    }
  }

  std::string refusal(const Graph& scope, const std::string& name, const std::pair<DType, Dims>& type,
                      const std::vector<Use>& uses) const {
    if (scope.kind() == Graph::Kind::function) return "it is inside a function, which cannot hold weights";
    if (bit_width(type.first) != 32 && bit_width(type.first) != 16)
      return fmt::format("its weight is {}", dtype_name(type.first));
    const std::uint64_t elements = element_count(type.second).value_or(0);
    if (elements == 0) return "its weight is empty";
    if (elements < static_cast<std::uint64_t>(options_.min_elements))
      return fmt::format("its weight has {} elements, fewer than min_elements={}", elements, options_.min_elements);
    return foreign_reader(scope, name, uses);
  }

  void add(Graph& scope, const std::string& name, const Dims& dims, const std::vector<Use>& uses) {
    Weight weight{
        .job = {.reader = &scope, .name = name, .dtype = dtype(), .channel_axis = channel_axis(uses.front())}};
    WeightJob& job = weight.job;
    job.symmetric = options_.symmetric;
    job.clip = options_.clip;
    for (const Use& use : uses) weight.readers.push_back(use.node);
    if (role_of(uses.front(), dims) == Role::other && dims.size() == 3 && is_recurrent(uses.front().node)) {
      job.view = {dims[0] * dims[1], dims[2]};
    } else if (dims.size() == 2) {
      const std::int64_t block = options_.block == Block::automatic ? (options_.weights == Bits::int4 ? 32 : 0)
                                                                    : static_cast<std::int64_t>(options_.block);
      if (block > 0 && (can_pack(weight, dims, uses, block) || dims[job.channel_axis == 0 ? 1 : 0] % block == 0))
        job.block = block;
    }
    weight.form = form_of(weight, dims, uses);
    if (weight.form == Form::packed) {
      job.dtype = DType::u4;
      job.transpose = job.channel_axis == 1;
    }
    weights_.push_back(std::move(weight));
  }

  // Whether kernels of packed 4-bit codes serve every reader.
  bool can_pack(const Weight& weight, const Dims& dims, const std::vector<Use>& uses, std::int64_t block) const {
    if (generic() || options_.weights != Bits::int4 || block < 16) return false;
    const bool padded = dims[weight.job.channel_axis == 0 ? 1 : 0] % block != 0;
    return weight.job.reader->constant_type(weight.job.name)->first == DType::f32 &&
           std::ranges::all_of(uses, [&](const Use& use) {
             if (channel_axis(use) != weight.job.channel_axis) return false;
             if (use.node.is("Gather"))
               return !padded && options_.symmetric && use.node.graph().type(use.node.input(1)).shape.has_value();
             if (!use.node.is("Transpose")) return is_plain_product(use.node);
             return std::ranges::all_of(use.node.graph().uses(use.node.output(0)),
                                        [](const Use& product) { return is_plain_product(product.node); });
           });
  }

  Form form_of(const Weight& weight, const Dims& dims, const std::vector<Use>& uses) const {
    if (weight.job.block > 0 && dims.size() == 2 && can_pack(weight, dims, uses, weight.job.block)) return Form::packed;
    const auto is_lookup = [](const Use& use) { return use.node.is("Gather"); };
    if (options_.weights == Bits::int8 && options_.symmetric && weight.job.block == 0 &&
        std::ranges::all_of(uses, is_lookup))
      return Form::rows;
    return generic() ? Form::dequantize : Form::store;
  }

  std::int64_t needed_opset(const Weight& weight) const {
    if (weight.form != Form::dequantize) return options_.weights == Bits::int4 ? 10 : 7;  // Slice with inputs
    if (weight.job.block > 0 || options_.weights == Bits::int4) return 21;
    return weight.job.reader->constant_type(weight.job.name)->first == DType::f32 ? 13 : 19;
  }

  // As far as the forms need it; forms that cannot have it become stored weights.
  void raise_opset() {
    std::int64_t needed = 0;
    for (const Weight& weight : weights_) needed = std::max(needed, needed_opset(weight));
    const std::int64_t before = model_.opset();
    if (before >= needed) return;
    if (const auto raised = upconvert(model_, needed); raised) {
      context_.journal.note(fmt::format("opset {} to {}", before, needed));
      return;
    } else {
      context_.journal.warning(raised.error().text());
    }
    for (Weight& weight : weights_)
      if (needed_opset(weight) > before) weight.form = Form::store;
    std::erase_if(weights_, [&](const Weight& weight) { return needed_opset(weight) > before; });
  }

  Status write(Weight& weight, QuantizedWeight codes) {
    weight.sqnr_db = codes.sqnr_db;
    const char* how = "folded to float at load: memory and speed as before";
    if (weight.form == Form::packed) {
      OP_TRY(write_packed(weight, codes));
      how = "4-bit kernels";
    } else if (weight.form == Form::rows) {
      OP_TRY(write_rows(weight, std::move(codes)));
      how = "rows are scaled as they are read";
    } else {
      const bool plain = weight.form == Form::dequantize;
      if (plain) how = "DequantizeLinear";
      OP_TRY(store_.replace(weight.job, std::move(codes), plain ? WeightForm::dequantize : WeightForm::store));
    }
    for (const Node& reader : weight.readers)
      context_.done(reader, fmt::format("{} weight{} (SQNR {:.1f} dB), {}", dtype_name(weight.job.dtype),
                                        weight.job.block > 0 ? fmt::format(" in blocks of {}", weight.job.block) : "",
                                        weight.sqnr_db, how));
    return {};
  }

  Status write_packed(const Weight& weight, const QuantizedWeight& codes) {
    Graph& scope = *weight.job.reader;
    const PackedMatrix matrix = add_packed_matrix(rewriters_.of(scope), weight.job, codes);
    drop_constant(rewriters_.of(scope), scope, weight.job.name);
    for (const Node& reader : weight.readers) {
      Rewriter& rewriter = rewriters_.of(reader.graph());
      if (reader.is("Gather")) {
        OP_TRY(emit_rows(rewriter, store_, reader, matrix, reader.graph().type(reader.input(1)).shape->size()));
      } else if (reader.is("Transpose")) {
        for (const Use& use : reader.graph().uses(reader.output(0)))
          emit_product(rewriters_.of(use.node.graph()), use.node, matrix);
        rewriter.erase(reader);
      } else {
        emit_product(rewriter, reader, matrix);
      }
    }
    return {};
  }

  void emit_product(Rewriter& rewriter, const Node& node, const PackedMatrix& matrix) {
    emit_matmul_nbits(rewriter, node, matrix, node.is("Gemm") ? node.input(2) : "");
    uses_contrib_ = true;
  }

  // int8 codes [V, D] and scales [V, 1].
  Status write_rows(const Weight& weight, QuantizedWeight weight_codes) {
    Graph& scope = *weight.job.reader;
    Rewriter& rewriter = rewriters_.of(scope);
    const DType type = scope.constant_type(weight.job.name)->first;
    const auto add = [&](const char* suffix, Tensor value) {
      std::string name = rewriter.fresh_value(weight.job.name + suffix);
      rewriter.add_initializer(name, std::move(value));
      return name;
    };
    OP_LET(Tensor scales, convert(weight_codes.scale_tensor(true).view(), type));
    scales.reshape({static_cast<std::int64_t>(scales.size()), 1});
    drop_constant(rewriter, scope, weight.job.name);
    const std::string codes = add("_quantized", std::move(weight_codes.codes)),
                      scale = add("_scale", std::move(scales));
    for (const Node& reader : weight.readers) emit_lookup(reader, codes, scale, type);
    return {};
  }

  void emit_lookup(const Node& node, const std::string& codes, const std::string& scale, DType type) {
    Rewriter& rewriter = rewriters_.of(node.graph());
    const std::string y(node.output(0)), index(node.input(1));
    const auto before = [&](const char* op, std::vector<std::string> inputs, std::string output,
                            std::vector<std::pair<std::string, AttributeValue>> attributes = {}) {
      rewriter.insert_before(node, {.op = op,
                                    .inputs = std::move(inputs),
                                    .outputs = {output},
                                    .attributes = std::move(attributes),
                                    .name = rewriter.fresh_node(fmt::format("{}_{}", node.label(), op))});
      return output;
    };
    const std::string rows = before("Gather", {codes, index}, rewriter.fresh_value(y + "_quantized"));
    const std::string real =
        before("Cast", {rows}, rewriter.fresh_value(y + "_cast"), {{"to", static_cast<std::int64_t>(type)}});
    const std::string scales = before("Gather", {scale, index}, rewriter.fresh_value(y + "_scale"));
    before("Mul", {real, scales}, y);
    rewriter.erase(node);
  }

  Model& model_;
  PassContext& context_;
  const Options& options_;
  Rewriters rewriters_;
  WeightStore store_;
  std::set<std::pair<Graph*, std::string>> seen_;
  std::vector<Weight> weights_;
  bool uses_contrib_ = false;
};

Result<Outcome> QuantWeights::run(Model& model, PassContext& context) const {
  if (model.opset() < kOldestOpset) {
    context.journal.warning(fmt::format("quant-weights needs opset {}, the model has {}", kOldestOpset, model.opset()));
    return Outcome{};
  }
  context.journal.note("target: " + target_name(resolve(options_.target)));
  Run state(model, context, options_);
  state.plan();
  OP_LET(const bool changed, state.execute());
  return Outcome{changed};
}

}  // namespace

PassInfo info_quant_weights() {
  return describe_pass<QuantWeights, Options>(
      {.summary = "Weights of 8 or 4 bits, activations stay float (weight-only quantization); needs no data",
       .description =
           "y = MatMul(x, w)  =>  y = MatMulNBits(x, codes, scales)\n\n"
           "MatMul, Gemm, Conv, ConvTranspose, LSTM, GRU, RNN and Gather (embeddings) with constant weights, also "
           "inside "
           "If, Loop and Scan. int4 matrices become com.microsoft.MatMulNBits, which only ONNX Runtime has. Embeddings "
           "are scaled row by row as they are read. Every other weight is stored as codes and computed back by "
           "standard "
           "operators that runtimes fold when they load the model: the file is small, memory and speed are those of "
           "the "
           "float model (fold-constants would undo it). target=generic writes DequantizeLinear instead. A table that "
           "an "
           "embedding and the last MatMul share stays one.",
       .example = "quant-weights{weights=int4 block=64 clip=mse}",
       .references = {"ONNX Runtime com.microsoft.MatMulNBits",
                      "Banner et al., Post training 4-bit quantization of convolutional networks for rapid-deployment, "
                      "2019 (arXiv:1810.05723)"},
       .lossy = true,
       .quantizes = true});
}

}  // namespace onnxpress
