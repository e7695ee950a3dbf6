#include "support/coarse.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Weight {
  std::string name;
  Dims dims;
  unsigned seed;
};
const std::vector<Weight> kWeights = {{"w1", {6, 3, 3, 3}, 1}, {"w2", {6, 1, 3, 3}, 2}, {"w3", {5, 6}, 3}};

std::string list(const auto& values) {
  std::string text;
  for (const auto value : values) text += fmt::format("{}{}", text.empty() ? "" : ", ", value);
  return text;
}

std::vector<float> values_of(const Weight& weight) {
  std::vector<float> values = random_floats(element_count(weight.dims).value(), weight.seed);
  for (float& value : values) value += 0.3F;  // rounding errors must not cancel out
  return values;
}

std::string text(bool quantized) {
  std::string constants, nodes;
  for (const Weight& weight : kWeights) {
    const std::vector<float> values = values_of(weight);
    const std::size_t channels = static_cast<std::size_t>(weight.dims[0]), each = values.size() / channels;
    if (!quantized) {
      constants += fmt::format("float{} {} = {{{}}}, ", dims_text(weight.dims), weight.name, list(values));
      continue;
    }
    std::vector<int> codes;
    std::vector<float> scales;
    for (std::size_t c = 0; c < channels; ++c) {
      const auto row = std::span(values).subspan(c * each, each);
      scales.push_back(std::abs(*std::ranges::max_element(row, {}, [](float v) { return std::abs(v); })) / 7);
      for (const float value : row) codes.push_back(static_cast<int>(std::nearbyint(value / scales.back())));
    }
    constants += fmt::format("int8{} {}_q = {{{}}}, float[{}] {}_s = {{{}}}, ", dims_text(weight.dims), weight.name,
                             list(codes), channels, weight.name, list(scales));
    nodes += fmt::format("{} = DequantizeLinear<axis = 0>({}_q, {}_s) ", weight.name, weight.name, weight.name);
  }
  return fmt::format(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[n, 3, 8, 8] x) => (float[n, 5] y) <{}"
      "float[6] b1 = {{0.1, -0.2, 0.3, 0, 0.5, -1}}, float[6] b2 = {{0, 0.1, 0.2, 0.3, 0.4, 0.5}}> {{ {}"
      "a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1) r = Relu(a) c = Conv<group = 6, strides = [2, 2]>(r, w2, b2) "
      "s = Relu(c) p = GlobalAveragePool(s) f = Flatten(p) y = Gemm<transB = 1>(f, w3) }}",
      constants, nodes);
}

}  // namespace

Model coarse_reference() { return parse(text(false)); }
Model coarse_quantized() { return parse(text(true)); }

std::vector<Batch> smooth_samples(std::size_t samples, std::size_t per_batch, unsigned seed) {
  std::vector<Batch> batches;
  for (std::size_t first = 0; first < samples; first += per_batch) {
    const std::size_t count = std::min(per_batch, samples - first);
    std::vector<float> values;
    for (std::size_t n = first; n < first + count; ++n) {
      const auto noise = random_floats(192, seed + 1000 + static_cast<unsigned>(n));
      for (std::size_t i = 0; i < 192; ++i)
        values.push_back(0.25F * noise[i] + noise[0] * static_cast<float>(i % 8) / 4 + noise[1] * 0.4F + 1);
    }
    Batch batch{.inputs = {{"x", Tensor::of_floats({static_cast<std::int64_t>(count), 3, 8, 8}, values)}},
                .labels = {},
                .samples = count};
    batches.push_back(std::move(batch));
  }
  return batches;
}

Outcome repair(Model& model, const std::string& pipeline, PassContext& context, std::vector<Batch> samples,
               unsigned jobs) {
  MemorySource source(std::move(samples));
  EngineActivations activations(source, jobs, 0);
  context.activations = source.size() > 0 ? &activations : nullptr;
  context.jobs = jobs;
  const Outcome outcome = run_pipeline(model, pipeline, &context);
  context.activations = nullptr;
  return outcome;
}

double coarse_sqnr(const Model& model) {
  const Batch batch = smooth_samples(40, 40, 5000).front();
  return sqnr_db(run_on(coarse_reference(), batch), run_on(model, batch));
}

}  // namespace onnxpress::testing
