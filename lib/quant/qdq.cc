#include "quant/qdq.h"

#include <algorithm>
#include <cassert>

namespace onnxpress {
namespace {

std::vector<std::pair<std::string, AttributeValue>> axis_attribute(std::optional<std::int64_t> axis) {
  if (!axis) return {};
  return {{"axis", *axis}};
}

std::vector<std::pair<std::string, AttributeValue>> cast_to(DType dtype) {
  return {{"to", static_cast<std::int64_t>(dtype)}};
}

Tensor zero_point_tensor(const CodeParams& params) {
  const std::int32_t zero = params.affine.zero_point;
  switch (params.dtype) {
    case DType::i8:
      return Tensor::scalar<std::int8_t>(DType::i8, static_cast<std::int8_t>(zero));
    case DType::u16:
      return Tensor::scalar<std::uint16_t>(DType::u16, static_cast<std::uint16_t>(zero));
    case DType::i16:
      return Tensor::scalar<std::int16_t>(DType::i16, static_cast<std::int16_t>(zero));
    default:
      assert(params.dtype == DType::u8);
      return Tensor::scalar<std::uint8_t>(DType::u8, static_cast<std::uint8_t>(zero));
  }
}

}  // namespace

std::string QdqWriter::add_constant(const std::string& base, Tensor value) {
  std::string name = rewriter_.fresh_value(base);
  rewriter_.add_initializer(name, std::move(value));
  return name;
}

std::string QdqWriter::domain_of(DType dtype) const {
  const bool wide = dtype == DType::i16 || dtype == DType::u16;
  return wide && graph_.model().opset() < 21 ? "com.microsoft" : "";
}

const QdqWriter::Names& QdqWriter::params_of(const std::string& root, const CodeParams& params) {
  const auto [found, fresh] = params_.try_emplace(root);
  if (fresh) {
    found->second.scale = add_constant(root + "_scale", Tensor::scalar<float>(DType::f32, params.affine.scale));
    found->second.zero_point = add_constant(root + "_zero_point", zero_point_tensor(params));
  }
  return found->second;
}

void QdqWriter::quantize(const std::string& value, const std::string& root, const CodeParams& params,
                         const Place& how) {
  const bool half = how.half, made_integer = how.made_integer;
  const bool back_to_half = half && made_integer && how.outside;
  const Names names = params_of(root, params);
  const Node producer = graph_.producer(value);
  const auto place = [&](NodeSpec spec) {
    // Behind what is placed there already: prepended nodes stand in the order of the calls too.
    return producer ? rewriter_.insert_after(producer, std::move(spec)) : rewriter_.prepend(std::move(spec));
  };
  // What the rest of the model reads: the dequantized value, or as half-precision what is made of it.
  std::string source = value;
  std::string outside = rewriter_.fresh_value(value + (back_to_half ? "_half" : "_dequantized"));
  if (made_integer && (!half || back_to_half) && !rewriter_.replace_uses(value, outside)) {
    // The name belongs to the outside: the producer's result takes another one.
    source = rewriter_.fresh_value(value + "_float");
    outside = value;
    for (std::size_t i = 0; i < producer.output_count(); ++i)
      if (producer.output(i) == value) rewriter_.set_output(producer, i, source);
  }
  if (made_integer && outside != value) outside_[value] = outside;
  if (half && made_integer) rewriter_.forget_type(value);
  const std::string domain = domain_of(params.dtype);
  if (half && !made_integer) {
    source = rewriter_.fresh_value(value + "_float");
    place({.op = "Cast",
           .inputs = {value},
           .outputs = {source},
           .attributes = cast_to(DType::f32),
           .name = rewriter_.fresh_node(value + "_Cast")});
  }
  const std::string codes = rewriter_.fresh_value(value + "_quantized");
  const std::string dequantized = back_to_half ? rewriter_.fresh_value(value + "_dequantized") : outside;
  place({.op = "QuantizeLinear",
         .inputs = {source, names.scale, names.zero_point},
         .outputs = {codes},
         .domain = domain,
         .name = rewriter_.fresh_node(value + "_QuantizeLinear")});
  codes_[value] = codes;
  if (!how.dequantize) return;
  place({.op = "DequantizeLinear",
         .inputs = {codes, names.scale, names.zero_point},
         .outputs = {dequantized},
         .domain = domain,
         .name = rewriter_.fresh_node(value + "_DequantizeLinear")});
  if (back_to_half)
    place({.op = "Cast",
           .inputs = {dequantized},
           .outputs = {outside},
           .attributes = cast_to(DType::f16),
           .name = rewriter_.fresh_node(value + "_Cast")});
  dequantized_[value] = dequantized;
}

void QdqWriter::read_per_channel(const Node& node, std::size_t slot, std::int64_t channels, const CodeParams& params) {
  const std::string value(node.input(slot));
  const auto count = static_cast<std::size_t>(channels);
  const std::vector<float> scales(count, params.affine.scale);
  const std::string scale = add_constant(value + "_scale", Tensor::of_floats({channels}, scales));
  const Tensor one = zero_point_tensor(params);
  Tensor zeros(params.dtype, {channels});
  for (std::size_t c = 0; c < count; ++c)
    std::ranges::copy(one.bytes(), zeros.mutable_bytes().begin() + static_cast<std::ptrdiff_t>(c * one.bytes().size()));
  const std::string zero = add_constant(value + "_zero_point", std::move(zeros));
  const std::string out = rewriter_.fresh_value(value + "_dequantized");
  rewriter_.insert_before(node, {.op = "DequantizeLinear",
                                 .inputs = {codes_.at(value), scale, zero},
                                 .outputs = {out},
                                 .attributes = axis_attribute(1),
                                 .name = rewriter_.fresh_node(value + "_DequantizeLinear")});
  rewriter_.set_input(node, slot, out);
}

void QdqWriter::read(const Node& node, std::size_t slot) {
  const auto found = dequantized_.find(std::string(node.input(slot)));
  assert(found != dequantized_.end());
  rewriter_.set_input(node, slot, found->second);
}

void QdqWriter::to_half(const Node& node) {
  const std::string value(node.output(0));
  std::string source = value, outside = rewriter_.fresh_value(value + "_half");
  if (!rewriter_.replace_uses(value, outside)) {
    source = rewriter_.fresh_value(value + "_float");
    outside = value;
    rewriter_.set_output(node, 0, source);
  } else {
    rewriter_.forget_type(value);
    outside_[value] = outside;
  }
  rewriter_.insert_after(node, {.op = "Cast",
                                .inputs = {source},
                                .outputs = {outside},
                                .attributes = cast_to(DType::f16),
                                .name = rewriter_.fresh_node(value + "_Cast")});
}

std::string QdqWriter::current(const Node& node, std::size_t slot) const {
  std::string value(node.input(slot));
  const auto found = outside_.find(value);
  return found == outside_.end() ? value : found->second;
}

void QdqWriter::read_privately(const Node& node, std::size_t slot, const CodeParams& params) {
  const std::string value(node.input(slot));
  const Names names = params_of(value + "_16", params);
  const std::string codes = rewriter_.fresh_value(value + "_quantized");
  const std::string dequantized = rewriter_.fresh_value(value + "_dequantized");
  rewriter_.insert_before(node, {.op = "QuantizeLinear",
                                 .inputs = {current(node, slot), names.scale, names.zero_point},
                                 .outputs = {codes},
                                 .domain = domain_of(params.dtype),
                                 .name = rewriter_.fresh_node(value + "_QuantizeLinear")});
  rewriter_.insert_before(node, {.op = "DequantizeLinear",
                                 .inputs = {codes, names.scale, names.zero_point},
                                 .outputs = {dequantized},
                                 .domain = domain_of(params.dtype),
                                 .name = rewriter_.fresh_node(value + "_DequantizeLinear")});
  rewriter_.set_input(node, slot, dequantized);
}

StoredWeight QdqWriter::store(const std::string& name, QuantizedWeight weight, std::optional<std::int64_t> axis,
                              std::string codes) {
  StoredWeight stored{.axis = axis};
  stored.scale = add_constant(name + "_scale", weight.scale_tensor(axis.has_value()));
  stored.zero_point = add_constant(name + "_zero_point", weight.zero_point_tensor(axis.has_value()));
  stored.codes = codes.empty() ? add_constant(name + "_quantized", std::move(weight.codes)) : std::move(codes);
  return stored;
}

std::string QdqWriter::weight(const Node& reader, const StoredWeight& stored) {
  const auto [found, fresh] = weights_.try_emplace(stored.codes);
  if (!fresh) return found->second;
  std::string base = stored.codes;
  if (constexpr std::string_view kSuffix = "_quantized"; base.ends_with(kSuffix))
    base.resize(base.size() - kSuffix.size());
  found->second = rewriter_.fresh_value(base + "_dequantized");
  rewriter_.insert_before(reader, {.op = "DequantizeLinear",
                                   .inputs = {stored.codes, stored.scale, stored.zero_point},
                                   .outputs = {found->second},
                                   .attributes = axis_attribute(stored.axis),
                                   .name = rewriter_.fresh_node(base + "_DequantizeLinear")});
  return found->second;
}

std::string QdqWriter::bias(const Node& reader, const std::string& name, Tensor codes,
                            const std::vector<float>& scales) {
  const bool per_channel = codes.dims().size() == 1 && scales.size() > 1;
  const Tensor scale_value = per_channel ? Tensor::of_floats({static_cast<std::int64_t>(scales.size())}, scales)
                                         : Tensor::scalar<float>(DType::f32, scales.front());
  const std::string scale = add_constant(name + "_scale", scale_value);
  const std::string quantized = add_constant(name + "_quantized", std::move(codes));
  const std::string out = rewriter_.fresh_value(name + "_dequantized");
  rewriter_.insert_before(reader,
                          {.op = "DequantizeLinear",
                           .inputs = {quantized, scale},
                           .outputs = {out},
                           .attributes = axis_attribute(per_channel ? std::optional<std::int64_t>(0) : std::nullopt),
                           .name = rewriter_.fresh_node(name + "_DequantizeLinear")});
  return out;
}

std::string QdqWriter::constant(const Node& reader, const std::string& name, Tensor codes, const CodeParams& params) {
  const Names names = params_of(name, params);
  const std::string quantized = add_constant(name + "_quantized", std::move(codes));
  const std::string out = rewriter_.fresh_value(name + "_dequantized");
  rewriter_.insert_before(reader, {.op = "DequantizeLinear",
                                   .inputs = {quantized, names.scale, names.zero_point},
                                   .outputs = {out},
                                   .domain = domain_of(params.dtype),
                                   .name = rewriter_.fresh_node(name + "_DequantizeLinear")});
  return out;
}

}  // namespace onnxpress
