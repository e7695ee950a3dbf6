// Speed of the numeric kernels (bytes per second of float input) and of the structures over large models.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "io/load.h"
#include "io/save.h"
#include "io/text.h"
#include "ir/rewriter.h"
#include "num/histogram.h"
#include "num/quantize.h"

namespace onnxpress {
namespace {

std::vector<float> values(std::size_t count) {
  std::vector<float> out(count);
  std::uint32_t state = 1;
  for (float& value : out) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
  }
  return out;
}

void report_bytes(benchmark::State& state, std::size_t floats) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) *
                          static_cast<std::int64_t>(floats * sizeof(float)));
}

void quantize_int8(benchmark::State& state) {
  const auto x = values(1 << 20);
  std::vector<std::int8_t> codes(x.size());
  const CodeRange range = code_range(DType::i8, true);
  const AffineParams params = choose_affine(-1, 1, range, true);
  for (auto _ : state) quantize_span(x, params, range, codes);
  report_bytes(state, x.size());
}
BENCHMARK(quantize_int8);

void minimum_and_maximum(benchmark::State& state) {
  const auto x = values(1 << 20);
  for (auto _ : state) benchmark::DoNotOptimize(min_max(x));
  report_bytes(state, x.size());
}
BENCHMARK(minimum_and_maximum);

// Bell-shaped like the inputs of an activation; with `relu` like its outputs.
std::vector<float> activations(std::size_t count, bool relu) {
  const auto uniform = values(4 * count);
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    const float sum = uniform[4 * i] + uniform[4 * i + 1] + uniform[4 * i + 2] + uniform[4 * i + 3];
    out[i] = relu ? std::max(sum, 0.0F) : sum;
  }
  return out;
}

void histogram(benchmark::State& state) {
  const auto x = activations(static_cast<std::size_t>(state.range(0)), state.range(1) != 0);
  Histogram counts;
  for (auto _ : state) counts.add(x, min_max(x));
  report_bytes(state, x.size());
  state.counters["ns/float"] =
      benchmark::Counter(static_cast<double>(x.size()) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(histogram)->ArgsProduct({{1 << 12, 1 << 15, 1 << 17, 1 << 20}, {0, 1}});

// A chain of `nodes` Relus, as a model.
Model chain(std::int64_t nodes) {
  Model model = std::move(
      *parse_model_text("<ir_version: 8, opset_import: [\"\": 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }"));
  Rewriter rewriter(model.main());
  const Node last = model.main().nodes().front();
  std::string value = "x";
  for (std::int64_t i = 1; i < nodes; ++i) {
    const std::string next = "v" + std::to_string(i);
    rewriter.insert_before(last, {"Relu", {value}, {next}});
    value = next;
  }
  rewriter.set_input(last, 0, value);
  benchmark::DoNotOptimize(rewriter.commit());
  return model;
}

void build_index(benchmark::State& state) {
  Model model = chain(state.range(0));
  for (auto _ : state) {
    model.invalidate();
    model.index();
  }
}
BENCHMARK(build_index)->Arg(10000)->Arg(40000)->Unit(benchmark::kMillisecond);

void load_and_save(benchmark::State& state) {
  const std::string bytes = *serialize_model(chain(state.range(0)));
  for (auto _ : state) {
    const auto model = load_model_bytes(std::as_bytes(std::span(bytes)), "bench");
    benchmark::DoNotOptimize(serialize_model(*model));
  }
}
BENCHMARK(load_and_save)->Arg(40000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace onnxpress
