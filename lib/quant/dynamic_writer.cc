#include "quant/dynamic_writer.h"

#include <fmt/format.h>

namespace onnxpress {

// Before the first reader; later readers in the same scope share it.
const DynamicWriter::Activation& DynamicWriter::activation(const Node& reader, DType dtype) {
  std::string value(reader.input(0));
  const auto [place, fresh] = activations_.try_emplace({&reader.graph(), value});
  Activation& out = place->second;
  if (!fresh) return out;
  Rewriter& rewriter = rewriters_.of(reader.graph());
  out = {rewriter.fresh_value(value + "_quantized"), rewriter.fresh_value(value + "_scale"),
         rewriter.fresh_value(value + "_zero_point")};
  const std::string base = value;
  if (dtype != DType::f32) {
    const std::string single = rewriter.fresh_value(value + "_float");
    rewriter.insert_before(reader, {.op = "Cast",
                                    .inputs = {value},
                                    .outputs = {single},
                                    .attributes = {{"to", static_cast<std::int64_t>(DType::f32)}},
                                    .name = rewriter.fresh_node(base + "_Cast")});
    value = single;
  }
  rewriter.insert_before(reader, {.op = "DynamicQuantizeLinear",
                                  .inputs = {value},
                                  .outputs = {out.codes, out.scale, out.zero_point},
                                  .name = rewriter.fresh_node(base + "_DynamicQuantizeLinear")});
  return out;
}

Status DynamicWriter::linear(const Node& node, const IntegerWeight& weight, DType dtype, const Dims& bias_dims) {
  Rewriter& rewriter = rewriters_.of(node.graph());
  const Activation x = activation(node, dtype);
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
  const bool is_conv = node.is("Conv"), is_half = dtype != DType::f32, has_bias = !node.input(2).empty();
  std::vector<std::pair<std::string, AttributeValue>> attributes;
  if (is_conv) {
    OP_LET(attributes, node.attributes());
  }
  const std::string sum =
      add(is_conv ? "ConvInteger" : "MatMulInteger", {x.codes, weight.codes, x.zero_point, weight.zero_point},
          fresh("_int32"), std::move(attributes));
  const std::string real = add("Cast", {sum}, fresh("_cast"), {{"to", static_cast<std::int64_t>(DType::f32)}});
  const std::string scale = add("Mul", {x.scale, weight.scale}, fresh("_scale"));
  const std::string output(node.output(0));
  const std::string result = has_bias ? fresh("_scaled") : output;
  const std::string product = add("Mul", {real, scale}, is_half ? fresh("_float") : result);
  if (is_half) add("Cast", {product}, result, {{"to", static_cast<std::int64_t>(dtype)}});
  if (has_bias) {
    OP_LET(const std::string bias, bias_of(node, bias_dims));
    add("Add", {result, bias}, output);
  }
  rewriter.erase(node);
  return {};
}

// What is added behind the scaling: C of a Gemm times beta, or the bias of a Conv along its channels.
Result<std::string> DynamicWriter::bias_of(const Node& node, const Dims& bias_dims) {
  std::string name(node.input(2));
  const float beta = node.is("Gemm") ? node.attr_float("beta", 1) : 1;
  if (!node.is("Conv") && beta == 1) return name;
  OP_LET(std::optional<Tensor> value, node.graph().constant(name));
  if (node.is("Conv")) value->reshape(bias_dims);
  if (beta != 1) {
    const DType dtype = value->dtype();
    OP_LET(value, convert(value->view(), DType::f32));
    for (float& element : value->as_mutable<float>()) element *= beta;
    OP_LET(value, convert(value->view(), dtype));
  }
  Rewriter& rewriter = rewriters_.of(node.graph());
  std::string fresh = rewriter.fresh_value(name + (node.is("Conv") ? "_per_channel" : "_times_beta"));
  rewriter.add_initializer(fresh, std::move(*value));
  return fresh;
}

Status DynamicWriter::lstm(const Node& node, const IntegerWeight& w, const IntegerWeight& r) {
  Rewriter& rewriter = rewriters_.of(node.graph());
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
  rewriter.erase(node);
  return {};
}

}  // namespace onnxpress
