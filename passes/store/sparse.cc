// store-sparse: zeros take no room in the file. Needs no data.
//
//   <float[n, m] w>              <uint8[k] gaps, float[k] values>
//   y = MatMul(x, w)     =>      w = Reshape(ScatterElements(ConstantOfShape(n * m), CumSum(Cast(gaps)), values), [n,
//   m])
//                                y = MatMul(x, w)
//
// Runtimes fold the nodes at load: the speed and the memory of the dense weight, bit by bit the same. A stored element
// takes a gap (1 byte) and a value: as it is, as a half where every value is one, or a byte that looks it up where
// there are at most 256 of them. A weight stays dense unless that is smaller, nodes included.
// Source: Han et al., "Deep Compression" (arXiv 1510.00149), decoded by operators of the standard.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "base/parallel.h"
#include "base/text.h"
#include "ir/edit.h"
#include "ir/file_bytes.h"
#include "ir/rewriters.h"
#include "ir/sparse_initializer.h"
#include "ir/upconvert.h"
#include "num/sparse_codec.h"
#include "pass/pass.h"
#include "pass/stored_sparse.h"
#include "sparse/sparse_store.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kFirstOpset = 11;       // CumSum and ScatterElements
constexpr std::uint64_t kWorkPerElement = 48;  // bytes while a weight is encoded

enum class Values { exact, fp32, fp16, codebook };
enum class Form { nodes, sparse_initializer };

struct Options {
  Values values = Values::exact;
  Form form = Form::nodes;
  std::int64_t min_elements = 256;
};

// A constant with the nodes that read it.
struct Weight {
  Graph* scope = nullptr;
  std::string name;
  DType dtype = DType::undefined;
  Dims dims;
  std::vector<Node> readers = {};

  std::uint64_t elements() const { return element_count(dims).value_or(0); }
  std::string text() const { return fmt::format("weight '{}' {}", name, dims_text(dims)); }
};

struct Encoded {
  std::string refusal = {};  // why the weight cannot be rounded
  bool smaller = false;
  std::uint64_t stored = 0, file_bytes = 0, dense_bytes = 0;
  std::optional<double> sqnr_db = {};  // of a weight that was rounded
  SparseWeight nodes = {};             // form=nodes
  Tensor values = {};                  // form=sparse_initializer
  std::vector<std::uint32_t> positions = {};
};

class StoreSparse final : public Pass {
 public:
  explicit StoreSparse(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema
        .add("values", &Options::values,
             {{"exact", Values::exact}, {"fp32", Values::fp32}, {"fp16", Values::fp16}, {"codebook", Values::codebook}},
             "exact: the smallest form that changes nothing; fp32: values as they are; fp16: rounded to halves; "
             "codebook: rounded to 256 values by k-means")
        .add("form", &Options::form, {{"nodes", Form::nodes}, {"sparse_initializer", Form::sparse_initializer}},
             "operators that are folded at load, or the sparse tensors of the format (12 bytes a value, exact)")
        .add("min_elements", &Options::min_elements, "smaller tensors stay as they are", {0, {}});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override;

 private:
  Options options_;
};

// The state of one run.
class Run {
 public:
  Run(Model& model, PassContext& context, const Options& options)
      : model_(model), context_(context), options_(options), rewriters_(model), sparse_(model) {}

  void plan() {
    for (Graph* graph : model_.graphs()) {
      std::unordered_set<const onnx::NodeProto*> decoders;
      for (const StoredSparse& stored : stored_sparse(*graph))
        for (const Node& node : stored.nodes) decoders.insert(node.proto());
      const auto is_decoder = [&](const Node& node) { return decoders.contains(node.proto()); };
      for (const Initializer& initializer : graph->initializers())
        consider({graph, std::string(initializer.name()), initializer.dtype(), initializer.dims()}, is_decoder);
      for (const Node& node : graph->nodes())
        if (const auto type = node.is("Constant") ? graph->constant_type(node.output(0)) : std::nullopt)
          consider({graph, std::string(node.output(0)), type->first, type->second}, is_decoder);
    }
  }

  Result<bool> execute() {
    std::uint64_t largest = 0;
    for (const Weight& weight : weights_) largest = std::max(largest, weight.elements() * kWorkPerElement);
    OP_LET(const bool ready, raise_opset());
    if (ready)
      OP_TRY(execute_and_commit<Encoded>(
          weights_.size(), weight_jobs(context_.jobs, largest, context_.memory_limit),
          [&](std::size_t i) { return encode(weights_[i]); },
          [&](std::size_t i, Encoded encoded) { return commit(weights_[i], std::move(encoded)); }));
    OP_LET(bool changed, rewriters_.commit());
    changed |= sparse_.commit();
    journal();
    return changed;
  }

 private:
  template <class IsDecoder>
  void consider(Weight weight, const IsDecoder& is_decoder) {
    if (!is_float(weight.dtype) && bit_width(weight.dtype) > 16) return;  // shapes and indices
    if (!is_float(weight.dtype) && !is_integer(weight.dtype)) return;
    bool handed_out = false;
    for (const Use& use : weight.scope->uses(weight.name)) {
      handed_out = handed_out || !use.node;
      if (use.node && !std::ranges::contains(weight.readers, use.node)) weight.readers.push_back(use.node);
    }
    if (weight.readers.empty() || std::ranges::all_of(weight.readers, is_decoder)) return;
    std::string reason = refusal(weight);
    if (reason.empty() && handed_out) reason = weight.text() + " is also handed out by a nested body";
    if (reason.empty() && !std::ranges::all_of(weight.readers, [&](const Node& node) { return selected(node); }))
      reason = weight.text() + " is also read by a node that is left out";
    if (reason.empty()) {
      weights_.push_back(std::move(weight));
    } else {
      refuse(weight, std::move(reason));
    }
  }

  std::string refusal(const Weight& weight) const {
    if (weight.scope->kind() == Graph::Kind::function) return "it is inside a function, which cannot hold weights";
    if (weight.scope->is_input(weight.name)) return weight.text() + " is also a graph input";
    if (weight.scope->is_output(weight.name)) return weight.text() + " is also a graph output";
    if (!is_sparse_storable(weight.dtype)) return fmt::format("{} is {}", weight.text(), dtype_name(weight.dtype));
    const std::uint64_t elements = weight.elements();
    if (elements == 0 || elements < static_cast<std::uint64_t>(options_.min_elements))
      return fmt::format("{} has {} elements, fewer than min_elements={}", weight.text(), elements,
                         options_.min_elements);
    if (elements > kMostSparseElements)
      return fmt::format("{} has more elements than 32-bit positions reach", weight.text());
    return {};
  }

  bool selected(const Node& node) {
    const auto [at, fresh] = selected_.try_emplace(node.proto(), false);
    if (fresh) at->second = context_.selected(node);
    return at->second;
  }

  // Of several constants of a node the largest has its reason told.
  void refuse(const Weight& weight, std::string reason) {
    for (const Node& reader : weight.readers) {
      if (!selected(reader)) continue;
      Refusal& known = refused_[reader.proto()];
      if (known.reason.empty() || weight.elements() > known.elements) known = {weight.elements(), reason};
    }
  }

  Result<Encoded> encode(const Weight& weight) const {
    OP_LET(auto constant, weight.scope->constant(weight.name));
    if (!constant) return fail(Code::internal, "{} is not constant", weight.text());
    Tensor tensor = std::move(*constant);
    Encoded out;
    if (is_float(tensor.dtype()) && (options_.values == Values::codebook || options_.values == Values::fp16)) {
      auto rounded = options_.values == Values::codebook ? round_to_codebook(tensor) : round_to_half(tensor);
      if (!rounded) {
        out.refusal = fmt::format("{} cannot be rounded: {}", weight.text(), rounded.error().text());
        return out;
      }
      if (!std::ranges::equal(rounded->bytes(), tensor.bytes())) out.sqnr_db = rounding_sqnr_db(tensor, *rounded);
      tensor = std::move(*rounded);
    }
    if (options_.form == Form::sparse_initializer) return encode_initializer(weight, tensor);
    out.nodes = encode_sparse(weight.name, tensor, options_.values != Values::fp32);
    out.smaller = out.nodes.smaller();
    out.stored = out.nodes.stored;
    out.file_bytes = out.nodes.file_bytes;
    out.dense_bytes = out.nodes.dense_bytes;
    return out;
  }

  static Encoded encode_initializer(const Weight& weight, const Tensor& tensor) {
    Encoded out;
    out.positions = positions_of_others(tensor.view(), Tensor(tensor.dtype(), {1}).view());
    out.stored = out.positions.size();
    out.dense_bytes = initializer_bytes(weight.name, weight.dtype, weight.dims);
    out.file_bytes = sparse_initializer_bytes(weight.name, weight.dtype, weight.dims, out.stored);
    out.smaller = out.file_bytes < out.dense_bytes;
    if (out.smaller) out.values = take(tensor.view(), out.positions);
    return out;
  }

  // Raised only for a weight that gains by it. False: it cannot be, and no weight is stored.
  Result<bool> raise_opset() {
    const std::int64_t before = model_.opset();
    if (options_.form != Form::nodes || before >= kFirstOpset) return true;
    bool gains = false;
    for (std::size_t i = 0; i < weights_.size() && !gains; ++i) {
      OP_LET(const Encoded encoded, encode(weights_[i]));
      gains = encoded.smaller;
    }
    if (!gains) return true;
    if (const auto raised = upconvert(model_, kFirstOpset); !raised) {
      const std::string reason = fmt::format("opset {} has no CumSum: {}", before, raised.error().text());
      for (const Weight& weight : weights_) refuse(weight, reason);
      return false;
    }
    context_.journal.note(fmt::format("opset {} to {}", before, kFirstOpset));
    return true;
  }

  Status commit(const Weight& weight, Encoded encoded) {
    const double share = 100 * static_cast<double>(encoded.stored) / static_cast<double>(weight.elements());
    if (!encoded.refusal.empty() || !encoded.smaller) {
      refuse(weight, !encoded.refusal.empty()
                         ? encoded.refusal
                         : fmt::format("{}: with {:.1f} % of it to store, no form is smaller than its {}",
                                       weight.text(), share, human_bytes(encoded.dense_bytes)));
      return {};
    }
    Rewriter& rewriter = rewriters_.of(*weight.scope);
    drop_constant(rewriter, *weight.scope, weight.name);
    const std::string how = form_text(encoded);
    before_ += encoded.dense_bytes;
    after_ += encoded.file_bytes;
    if (options_.form == Form::nodes) {
      write_sparse(rewriter, weight.name, std::move(encoded.nodes));
    } else {
      OP_TRY(sparse_.add(*weight.scope, weight.name, weight.dims, std::move(encoded.values), encoded.positions));
    }
    ++stored_;
    for (const Node& reader : weight.readers) {
      done_.insert(reader.proto());
      context_.done(reader, fmt::format("{}: {:.1f} % of it stored, {}; {} -> {} in the file, {} again once loaded",
                                        weight.text(), share, how, human_bytes(encoded.dense_bytes),
                                        human_bytes(encoded.file_bytes),
                                        human_bytes(byte_count(weight.dtype, weight.dims).value_or(0))));
    }
    return {};
  }

  std::string form_text(const Encoded& encoded) const {
    if (options_.form == Form::sparse_initializer) return "as a sparse initializer";
    const SparseWeight& weight = encoded.nodes;
    std::string text = fmt::format("gaps {}", dtype_name(weight.gaps.dtype()));
    if (weight.form == SparseValues::codebook) text += fmt::format(", a table of {} values", weight.values.size());
    if (weight.form == SparseValues::plain) text += fmt::format(", values {}", dtype_name(weight.values.dtype()));
    if (weight.form == SparseValues::half) text += ", values float16";
    text += encoded.sqnr_db ? fmt::format(" (rounded, SQNR {:.1f} dB)", *encoded.sqnr_db) : " (exact)";
    return text;
  }

  void journal() {
    for (Graph* graph : model_.graphs())
      for (const Node& node : graph->nodes())
        if (const auto found = refused_.find(node.proto()); found != refused_.end() && !done_.contains(node.proto()))
          context_.skipped(node, found->second.reason);
    if (stored_ == 0) return;
    context_.journal.note(
        fmt::format("{} weights stored sparse: {} -> {} in the file. Memory and speed of a run are unchanged: {}",
                    stored_, human_bytes(before_), human_bytes(after_),
                    options_.form == Form::nodes ? "runtimes fold them at load, ONNX Runtime from ORT_ENABLE_BASIC on"
                                                 : "runtimes make them dense at load"));
  }

  struct Refusal {
    std::uint64_t elements = 0;
    std::string reason;
  };

  Model& model_;
  PassContext& context_;
  const Options& options_;
  Rewriters rewriters_;
  SparseInitializerWriter sparse_;
  std::vector<Weight> weights_;
  std::unordered_map<const onnx::NodeProto*, bool> selected_;
  std::unordered_map<const onnx::NodeProto*, Refusal> refused_;
  std::unordered_set<const onnx::NodeProto*> done_;
  std::uint64_t stored_ = 0, before_ = 0, after_ = 0;
};

Result<Outcome> StoreSparse::run(Model& model, PassContext& context) const {
  if (options_.form == Form::sparse_initializer &&
      (options_.values == Values::fp16 || options_.values == Values::codebook))
    return fail(Code::usage, "form=sparse_initializer holds values as they are; fp16 and codebook need form=nodes");
  Run run(model, context, options_);
  run.plan();
  OP_LET(const bool changed, run.execute());
  return Outcome{changed};
}

}  // namespace

PassInfo info_store_sparse() {
  return describe_pass<StoreSparse, Options>({
      .summary = "Stores zeros of weights in no room, decoded by standard operators at load",
      .description =
          "y = MatMul(x, w)  =>  w = Reshape(ScatterElements(ConstantOfShape(n), CumSum(Cast(gaps)), values), "
          "shape)\n\n"
          "Each element that is not zero takes a gap of one byte and a value: as it is, as a half where every value is "
          "one, or a byte that looks it up where a weight has at most 256 of them (after quantization or clustering). "
          "Distances that do not fit are bridged by stored zeros, or gaps take two bytes. Every weight gets the form "
          "that is smallest, nodes included, and stays dense where none is smaller. The weight keeps its name and is "
          "the same bit by bit; values=fp16 and values=codebook round it first, and the journal says how well. In "
          "8-bit integers the most frequent code takes no room, whatever the zero point is.\n\n"
          "The file shrinks, nothing else: runtimes that fold constants (ONNX Runtime from ORT_ENABLE_BASIC on, its "
          "default is above that) compute the dense weight once at load. With all optimizations off it is computed in "
          "every run. To other passes a stored weight is no constant: run this one last.\n\n"
          "Never touched: weights that are graph inputs or outputs, tensors of other types than float, double, "
          "float16, bfloat16, int8 and uint8, and constants of functions. Models older than opset 11 are raised to it. "
          "form=sparse_initializer writes sparse tensors of the format instead: larger (12 bytes a float value, "
          "smaller than dense from 66.7 % zeros on), and fewer tools read them.",
      .example = "prune-magnitude{sparsity=0.9},store-sparse",
      .references = {"Han et al., Deep Compression, arXiv 1510.00149"},
      .lossy = true,
  });
}

}  // namespace onnxpress
