#include "quant/qdq.h"

#include <cassert>

namespace onnxpress {
namespace {

std::vector<std::pair<std::string, AttributeValue>> axis_attribute(std::optional<std::int64_t> axis) {
  if (!axis) return {};
  return {{"axis", *axis}};
}

}  // namespace

std::string QdqWriter::add_constant(const std::string& base, Tensor value) {
  std::string name = rewriter_.fresh_value(base);
  rewriter_.add_initializer(name, std::move(value));
  return name;
}

const QdqWriter::Names& QdqWriter::params_of(const std::string& root, AffineParams params) {
  const auto [found, fresh] = params_.try_emplace(root);
  if (fresh) {
    found->second.scale = add_constant(root + "_scale", Tensor::scalar<float>(DType::f32, params.scale));
    found->second.zero_point = add_constant(
        root + "_zero_point", Tensor::scalar<std::uint8_t>(DType::u8, static_cast<std::uint8_t>(params.zero_point)));
  }
  return found->second;
}

void QdqWriter::quantize(const std::string& value, const std::string& root, AffineParams params, bool all_readers) {
  const Names& names = params_of(root, params);
  const Node producer = graph_.producer(value);
  const auto place = [&](NodeSpec spec) {
    // Behind what is placed there already: prepended nodes stand in the order of the calls too.
    return producer ? rewriter_.insert_after(producer, std::move(spec)) : rewriter_.prepend(std::move(spec));
  };
  std::string source = value;
  std::string dequantized = rewriter_.fresh_value(value + "_dequantized");
  if (all_readers && !rewriter_.replace_uses(value, dequantized)) {
    // The name belongs to the outside: the producer's result takes another one.
    source = rewriter_.fresh_value(value + "_float");
    dequantized = value;
    for (std::size_t i = 0; i < producer.output_count(); ++i)
      if (producer.output(i) == value) rewriter_.set_output(producer, i, source);
  }
  const std::string codes = rewriter_.fresh_value(value + "_quantized");
  place({.op = "QuantizeLinear",
         .inputs = {source, names.scale, names.zero_point},
         .outputs = {codes},
         .name = rewriter_.fresh_node(value + "_QuantizeLinear")});
  place({.op = "DequantizeLinear",
         .inputs = {codes, names.scale, names.zero_point},
         .outputs = {dequantized},
         .name = rewriter_.fresh_node(value + "_DequantizeLinear")});
  dequantized_[value] = dequantized;
}

void QdqWriter::read(const Node& node, std::size_t slot) {
  const auto found = dequantized_.find(std::string(node.input(slot)));
  assert(found != dequantized_.end());
  rewriter_.set_input(node, slot, found->second);
}

std::string QdqWriter::weight(const Node& reader, const std::string& name, QuantizedWeight weight,
                              std::optional<std::int64_t> axis) {
  const std::string scale = add_constant(name + "_scale", weight.scale_tensor(axis.has_value()));
  const std::string zero = add_constant(name + "_zero_point", weight.zero_point_tensor(axis.has_value()));
  const std::string codes = add_constant(name + "_quantized", std::move(weight.codes));
  const std::string out = rewriter_.fresh_value(name + "_dequantized");
  rewriter_.insert_before(reader, {.op = "DequantizeLinear",
                                   .inputs = {codes, scale, zero},
                                   .outputs = {out},
                                   .attributes = axis_attribute(axis),
                                   .name = rewriter_.fresh_node(name + "_DequantizeLinear")});
  return out;
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

}  // namespace onnxpress
