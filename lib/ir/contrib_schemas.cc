#include "ir/contrib_schemas.h"

#include <onnx/defs/schema.h>
#include <onnx/defs/shape_inference.h>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace onnxpress {
namespace {

using onnx::InferenceContext;
using onnx::TensorShapeProto;

std::optional<TensorShapeProto> shape_of(const InferenceContext& context, std::size_t input) {
  if (input >= context.getNumInputs() || !onnx::hasInputShape(context, input)) return std::nullopt;
  return onnx::getInputShape(context, input);
}

// none: not known
std::optional<std::int64_t> known(const TensorShapeProto& shape, int axis) {
  if (axis < 0 || axis >= shape.dim_size() || !shape.dim(axis).has_dim_value()) return std::nullopt;
  return shape.dim(axis).dim_value();
}

std::int64_t int_attr(const InferenceContext& context, const char* key) {
  const onnx::AttributeProto* attribute = context.getAttribute(key);
  return attribute == nullptr ? 0 : attribute->i();
}

TensorShapeProto::Dimension dim(std::optional<std::int64_t> value) {
  TensorShapeProto::Dimension result;
  if (value) result.set_dim_value(*value);
  return result;
}

void give(InferenceContext& context, std::size_t output, const std::vector<TensorShapeProto::Dimension>& dims) {
  if (output >= context.getNumOutputs()) return;
  onnx::propagateElemTypeFromInputToOutput(context, 0, output);
  TensorShapeProto* shape = onnx::getOutputShape(context, output);
  for (const auto& each : dims) *shape->add_dim() = each;
}

// [..., last] in the rows of `input`: its first axes, one less than `rank` of them.
void give_rows(InferenceContext& context, const TensorShapeProto& input, int axes, std::optional<std::int64_t> last) {
  std::vector<TensorShapeProto::Dimension> dims(input.dim().begin(), input.dim().begin() + axes);
  dims.push_back(dim(last));
  give(context, 0, dims);
}

std::optional<std::int64_t> times(std::optional<std::int64_t> a, std::optional<std::int64_t> b) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  return a && b && *a <= kMost && *b <= kMost ? std::optional(*a * *b) : std::nullopt;
}
std::optional<std::int64_t> over(std::optional<std::int64_t> a, std::int64_t b) {
  return a && b > 0 && *a % b == 0 ? std::optional(*a / b) : std::nullopt;
}

void same_as_input(InferenceContext& context) { onnx::propagateShapeAndTypeFromFirstInput(context); }

// Also the sum of input and skip, output 3.
void skip_normalization(InferenceContext& context) {
  same_as_input(context);
  if (context.getNumOutputs() < 4) return;
  onnx::propagateElemTypeFromInputToOutput(context, 0, 3);
  if (onnx::hasInputShape(context, 0)) onnx::propagateShapeFromInputToOutput(context, 0, 3);
}

// Attention and PackedAttention: the projections are part of the operator.
void attention(InferenceContext& context) {
  const auto input = shape_of(context, 0), weight = shape_of(context, 1);
  if (!input || !weight || input->dim_size() < 2) return;
  const onnx::AttributeProto* sizes = context.getAttribute("qkv_hidden_sizes");
  const bool listed = sizes != nullptr && sizes->ints_size() == 3;
  const auto values = listed ? std::optional(sizes->ints(2)) : over(known(*weight, 1), 3);
  give_rows(context, *input, input->dim_size() - 1, values);
  const std::int64_t heads = int_attr(context, "num_heads");
  if (input->dim_size() == 3) give(context, 1, {dim(2), input->dim(0), dim(heads), dim({}), dim(over(values, heads))});
}

// MultiHeadAttention, its packed and decoder forms, and GroupQueryAttention. Keys and values may have fewer heads.
void attention_on_projections(InferenceContext& context, bool grouped) {
  const auto query = shape_of(context, 0), key = shape_of(context, 1), value = shape_of(context, 2);
  if (!query || query->dim_size() < 2 || query->dim_size() > 5) return;
  const std::int64_t heads = int_attr(context, "num_heads"), kv = grouped ? int_attr(context, "kv_num_heads") : heads;
  const int rank = query->dim_size();
  std::optional<std::int64_t> width, value_width;  // of one head
  if (rank > 3) {                                  // [B, S, H, 3, d], [T, H, 3, d]
    width = value_width = known(*query, rank - 1);
  } else if (!key) {
    width = value_width = over(known(*query, rank - 1), heads + 2 * kv);
    if (context.getNumInputs() > 1 && context.getInputType(1) != nullptr) width = value_width = std::nullopt;
  } else {
    width = value_width = over(known(*query, rank - 1), heads);
    if (value) {
      const auto last = known(*value, value->dim_size() - 1);
      value_width = value->dim_size() == 4 ? last : over(last, kv);
    }
  }
  give_rows(context, *query, rank > 3 ? rank - 3 : rank - 1, times(value_width, heads));
  give(context, 1, {query->dim(0), dim(kv), dim({}), dim(width)});
  give(context, 2, {query->dim(0), dim(kv), dim({}), dim(value_width)});
}
void multi_head(InferenceContext& context) { attention_on_projections(context, false); }
void grouped_query(InferenceContext& context) { attention_on_projections(context, true); }

void relative_position_bias(InferenceContext& context) {
  if (const auto table = shape_of(context, 0)) give(context, 0, {dim(1), dim(known(*table, 1)), dim({}), dim({})});
}

using InferenceFunction = void (*)(InferenceContext&);

// Operators for which libonnx 1.17 reads beyond the kernel when the ranks of input and weight differ: the slot of the
// weight.
constexpr std::array<std::pair<const char*, std::size_t>, 5> kRanksMustFit = {
    {{"Conv", 1}, {"ConvTranspose", 1}, {"ConvInteger", 1}, {"QLinearConv", 3}, {"DeformConv", 1}}};

onnx::OpSchema with_fitting_ranks(const onnx::OpSchema& schema, std::size_t weight) {
  onnx::OpSchema guarded = schema;
  const onnx::InferenceFunction infer = schema.GetTypeAndShapeInferenceFunction();
  guarded.TypeAndShapeInferenceFunction([infer, weight](InferenceContext& context) {
    const auto x = shape_of(context, 0), w = shape_of(context, weight);
    if (x && w && x->dim_size() != w->dim_size()) return;
    infer(context);
  });
  return guarded;
}

class Registry final : public onnx::ISchemaRegistry {
 public:
  Registry() {
    for (const auto& [op, function] : std::initializer_list<std::pair<const char*, InferenceFunction>>{
             {"Attention", attention},
             {"PackedAttention", attention},
             {"DecoderMaskedSelfAttention", attention},
             {"MultiHeadAttention", multi_head},
             {"PackedMultiHeadAttention", multi_head},
             {"DecoderMaskedMultiHeadAttention", multi_head},
             {"GroupQueryAttention", grouped_query},
             {"RelativePositionBias", relative_position_bias},
             {"RotaryEmbedding", same_as_input},
             {"SkipLayerNormalization", skip_normalization},
             {"SkipSimplifiedLayerNormalization", skip_normalization},
             {"BiasGelu", same_as_input},
             {"FastGelu", same_as_input},
             {"QuickGelu", same_as_input},
             {"Gelu", same_as_input}}) {
      onnx::OpSchema& schema = schemas_[op];
      schema.SetName(op).SetDomain("com.microsoft").SinceVersion(1).TypeAndShapeInferenceFunction(function);
    }
    for (const auto& [op, weight] : kRanksMustFit)
      for (int version = 1; version <= kNewestOpset; ++version)
        if (const onnx::OpSchema* schema = onnx::OpSchemaRegistry::Schema(op, version))
          guarded_.try_emplace({op, schema->SinceVersion()}, with_fitting_ranks(*schema, weight));
  }
  const onnx::OpSchema* GetSchema(const std::string& op, const int most, const std::string& domain) const override {
    const auto found = schemas_.find(op);
    if (domain == "com.microsoft" && found != schemas_.end()) return &found->second;
    const onnx::OpSchema* schema = onnx::OpSchemaRegistry::Instance()->GetSchema(op, most, domain);
    if (schema == nullptr || !domain.empty()) return schema;
    const auto guarded = guarded_.find({op, schema->SinceVersion()});
    return guarded == guarded_.end() ? schema : &guarded->second;
  }

 private:
  static constexpr int kNewestOpset = 22;  // of libonnx 1.17
  std::map<std::string, onnx::OpSchema> schemas_;
  std::map<std::pair<std::string, int>, onnx::OpSchema> guarded_;
};

}  // namespace

const onnx::ISchemaRegistry& schemas_with_contrib() {
  static const Registry registry;
  return registry;
}

}  // namespace onnxpress
