#include "quant/weight.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>

#include "ir/rewriter.h"
#include "num/quantize.h"
#include "quant/target.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinRel;

Model model_with(const std::string& tensor) {
  return parse(HEAD "g (float[1] x) => (float[1] y) <" + tensor + "> { y = Identity(x) }");
}

// The job on tensor "w".
QuantizedWeight quantize(const Model& model, WeightJob job) {
  job.reader = &model.main();
  job.name = "w";
  auto weight = quantize_weight(job);
  INFO((weight ? "" : weight.error().text()));
  REQUIRE(weight);
  CHECK(peak_bytes(job) >= 5 * weight->codes.size());
  return std::move(*weight);
}

std::vector<int> codes_of(const QuantizedWeight& weight) {
  const auto wide = to_int64s(weight.codes.view());
  REQUIRE(wide);
  return {wide->begin(), wide->end()};
}

TEST_CASE("quantize_weight: symmetric scales per channel and per tensor") {
  const Model model = model_with("float[2, 3] w = {1, -127, 63.6, 0.5, 0.25, -0.125}");
  const auto rows = quantize(model, {.channel_axis = 0});
  CHECK(rows.codes.dtype() == DType::i8);
  CHECK(rows.codes.dims() == Dims{2, 3});
  CHECK(rows.scales == std::vector<float>{1, 0.5F / 127});
  CHECK(codes_of(rows) == std::vector<int>{1, -127, 64, 127, 64, -32});
  CHECK(rows.zero_point == 0);
  CHECK(rows.raised == 0);
  CHECK(rows.scale_tensor(true).dims() == Dims{2});
  CHECK(rows.zero_point_tensor(true).dims() == Dims{2});
  CHECK(rows.zero_point_tensor(true).dtype() == DType::i8);

  const auto columns = quantize(model, {.channel_axis = 1});
  CHECK(columns.scales == std::vector<float>{1.0F / 127, 1, 63.6F / 127});
  CHECK(codes_of(columns) == std::vector<int>{127, -127, 127, 64, 0, 0});

  const auto whole = quantize(model, {.channel_axis = 1, .per_channel = false});
  CHECK(whole.scales == std::vector<float>{1});
  CHECK(codes_of(whole) == std::vector<int>{1, -127, 64, 0, 0, 0});
  CHECK(whole.scale_tensor(false).dims().empty());
  CHECK(whole.scale_tensor(false).as<float>()[0] == 1);
  CHECK(whole.zero_point_tensor(false).dims().empty());
}

TEST_CASE("quantize_weight: uint8 codes around 128") {
  const Model model = model_with("float[2, 2] w = {1, -1, 0, 0}");
  const auto weight = quantize(model, {.dtype = DType::u8, .channel_axis = 0});
  CHECK(weight.codes.dtype() == DType::u8);
  CHECK(weight.zero_point == 128);
  const auto codes = codes_of(weight);
  CHECK(codes[0] - 128 == -(codes[1] - 128));
  CHECK(codes[2] == 128);
  CHECK(codes[3] == 128);
  CHECK(weight.zero_point_tensor(true).as<std::uint8_t>()[1] == 128);
  CHECK_THAT(static_cast<float>(codes[0] - 128) * weight.scales[0], WithinRel(1.0F, 0.005F));
}

TEST_CASE("quantize_weight: a channel of zeros has zero codes and a usable scale") {
  const Model model = model_with("float[2, 2] w = {0, 0, 3, -3}");
  for (const DType dtype : {DType::i8, DType::u8}) {
    const auto weight = quantize(model, {.dtype = dtype, .channel_axis = 0, .avoid_saturation = dtype == DType::i8});
    CHECK(weight.scales[0] == weight.scales[1]);
    const auto codes = codes_of(weight);
    CHECK(codes[0] == weight.zero_point);
    CHECK(codes[1] == weight.zero_point);
  }
  // The finest scale of the others, for the sake of the bias; 1 when there is none. Not mistaken for zero: scale 1.
  const auto finest = quantize(model_with("float[4, 1] w = {0, 127, 254, 1e-37}"), {.channel_axis = 0});
  CHECK(finest.scales == std::vector<float>{1, 1, 2, 1});
  const auto fine = quantize(model_with("float[4, 1] w = {0, 127, 0.5, 1e-37}"), {.channel_axis = 0});
  CHECK(fine.scales == std::vector<float>{0.5F / 127, 1, 0.5F / 127, 0.5F / 127});
  CHECK(codes_of(fine) == std::vector<int>{0, 127, 127, 0});
  CHECK(quantize(model_with("float[2, 1] w = {0, 0}"), {.channel_axis = 0}).scales == std::vector<float>{1, 1});
  CHECK(quantize(model_with("float[2, 1] w = {0, 0}"), {.per_channel = false}).scales == std::vector<float>{1});
}

TEST_CASE("quantize_weight: SQNR is that of the dequantized codes, infinite when exact") {
  const Model model = model_with(float_tensor("w", {8, 16}, 3));
  const auto weight = quantize(model, {.channel_axis = 0});
  const auto floats = random_floats(128, 3);
  const auto codes = codes_of(weight);
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < 128; ++i) {
    const double error = floats[i] - static_cast<double>(static_cast<float>(codes[i]) * weight.scales[i / 16]);
    signal += double{floats[i]} * floats[i];
    noise += error * error;
  }
  CHECK_THAT(double{weight.sqnr_db}, WithinRel(10 * std::log10(signal / noise), 1e-4));
  CHECK(std::isinf(quantize(model_with("float[1, 2] w = {127, -127}"), {}).sqnr_db));
}

TEST_CASE("quantize_weight: transposed codes, in blocks too") {
  const Model model = model_with("float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 127}");
  const auto plain = quantize(model, {.per_channel = false, .transpose = true});
  CHECK(plain.codes.dims() == Dims{3, 4});
  CHECK(codes_of(plain) == std::vector<int>{1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 127});
  const auto blocks = quantize(model, {.per_channel = false, .transpose = true, .blocks = 2});
  CHECK(blocks.codes.dims() == Dims{2, 3, 2});
  CHECK(codes_of(blocks) == std::vector<int>{1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 127});
  const Model cube = model_with("float[2, 2, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 127}");
  const auto view = quantize(cube, {.per_channel = false, .view = {4, 3}, .transpose = true, .blocks = 2});
  CHECK(view.codes.dims() == Dims{2, 3, 2});
  CHECK(codes_of(view) == codes_of(blocks));
}

TEST_CASE("quantize_weight: the factor goes into the scale") {
  const Model model = model_with("float[1, 2] w = {2, -4}");
  const auto weight = quantize(model, {.channel_axis = 0, .factor = -0.5F});
  CHECK(weight.scales == std::vector<float>{2.0F / 127});
  CHECK(codes_of(weight) == std::vector<int>{-64, 127});
}

TEST_CASE("quantize_weight: scales are raised to the least scale, others stay") {
  const Model model = model_with("float[3, 2] w = {127, -63.5, 1.27, 0.635, 0, 0}");
  const auto weight = quantize(model, {.channel_axis = 0, .least_scale = {0.5, 0.1, 2.5}});
  CHECK(weight.scales[0] == 1);
  CHECK(double{weight.scales[1]} >= 0.1);
  CHECK_THAT(weight.scales[1], WithinRel(0.1F, 1e-6F));
  CHECK(double{weight.scales[2]} >= 2.5);
  CHECK(codes_of(weight) == std::vector<int>{127, -64, 13, 6, 0, 0});
  const auto whole = quantize(model, {.per_channel = false, .least_scale = {3}});
  CHECK_THAT(whole.scales[0], WithinRel(3.0F, 1e-6F));
}

TEST_CASE("quantize_weight refuses NaN and infinity") {
  Model model = model_with("float[2] w = {1, 2}");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const std::vector<float> values = {1, bad};
    Rewriter rewriter(model.main());
    rewriter.set_initializer(model.main().initializer("w"), Tensor::of_floats({2}, values));
    REQUIRE(rewriter.commit());
    const auto weight = quantize_weight({.reader = &model.main(), .name = "w"});
    REQUIRE_FALSE(weight);
    CHECK(weight.error().code == Code::bad_input);
    CHECK(weight.error().text().find("weight 'w'") != std::string::npos);
  }
}

// Positions of the codes of one output channel in the order the runtime reduces them, spelled out per layout.
using Order = std::vector<std::vector<std::size_t>>;

Order columns_of(std::size_t rows, std::size_t columns, std::size_t first = 0) {
  Order order(columns);
  for (std::size_t c = 0; c < columns; ++c)
    for (std::size_t k = 0; k < rows; ++k) order[c].push_back(first + k * columns + c);
  return order;
}
Order rows_of(std::size_t rows, std::size_t columns) {
  Order order(rows);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t k = 0; k < columns; ++k) order[r].push_back(r * columns + k);
  return order;
}
// [M, C, positions]: at each kernel position all input channels, then the next position.
Order filters_of(std::size_t outputs, std::size_t inputs, std::size_t positions) {
  Order order(outputs);
  for (std::size_t m = 0; m < outputs; ++m)
    for (std::size_t p = 0; p < positions; ++p)
      for (std::size_t c = 0; c < inputs; ++c) order[m].push_back((m * inputs + c) * positions + p);
  return order;
}

// The largest |a + b| of neighbours with one sign: the 16-bit sum of 255 * a + 255 * b is exact up to 128.
int largest_pair(const std::vector<int>& codes, const std::vector<std::size_t>& order) {
  int largest = 0;
  for (std::size_t k = 0; k + 1 < order.size(); k += 2) {
    const int a = codes[order[k]], b = codes[order[k + 1]];
    if ((a > 0 && b > 0) || (a < 0 && b < 0)) largest = std::max(largest, std::abs(a + b));
  }
  return largest;
}

// Both with and without the guard; `order` lists the codes as they are stored.
void check_guard(const Model& model, WeightJob job, const Order& order) {
  job.avoid_saturation = false;
  const auto plain = quantize(model, job);
  job.avoid_saturation = true;
  const auto guarded = quantize(model, job);
  REQUIRE(guarded.codes.dims() == plain.codes.dims());
  const auto before = codes_of(plain), after = codes_of(guarded);
  std::size_t offending = 0;
  int largest = 0;
  for (std::size_t c = 0; c < order.size(); ++c) {
    INFO("channel " << c);
    const bool offends = largest_pair(before, order[c]) > 128;
    offending += offends ? 1U : 0U;
    const int pair = largest_pair(after, order[c]);
    largest = std::max(largest, pair);
    CHECK(pair <= 128);
    if (!job.per_channel) continue;
    if (offends) {
      CHECK(guarded.scales[c] > plain.scales[c]);
      CHECK(guarded.scales[c] <= 2 * plain.scales[c]);
      CHECK(pair >= 124);  // no further than needed
    } else {
      CHECK(guarded.scales[c] == plain.scales[c]);
    }
  }
  CHECK(offending > 0);
  if (job.per_channel) {
    CHECK(offending < order.size());
    CHECK(guarded.raised == offending);
  } else {
    CHECK(guarded.scales[0] > plain.scales[0]);
    CHECK(largest >= 124);
  }
  CHECK(plain.raised == 0);
}

TEST_CASE("quantize_weight: neighbours stay clear of 16-bit saturation, MatMul") {
  const Model model = model_with(float_tensor("w", {7, 24}, 1));
  check_guard(model, {.channel_axis = 1}, columns_of(7, 24));
  check_guard(model, {.channel_axis = 1, .per_channel = false}, columns_of(7, 24));
}

TEST_CASE("quantize_weight: neighbours stay clear of 16-bit saturation, Gemm with transB") {
  const Model model = model_with(float_tensor("w", {24, 7}, 1));
  check_guard(model, {.channel_axis = 0}, rows_of(24, 7));
  check_guard(model, {.channel_axis = 0, .transpose = true}, columns_of(7, 24));
}

TEST_CASE("quantize_weight: neighbours stay clear of 16-bit saturation, Conv") {
  check_guard(model_with(float_tensor("w", {16, 4, 3, 1}, 2)), {}, filters_of(16, 4, 3));
  check_guard(model_with(float_tensor("w", {16, 3, 3}, 2)), {}, filters_of(16, 3, 3));  // pairs cross positions
  check_guard(model_with(float_tensor("w", {16, 1, 2, 2, 2}, 5)), {}, filters_of(16, 1, 8));
  check_guard(model_with(float_tensor("w", {16, 3, 3}, 2)), {.per_channel = false}, filters_of(16, 3, 3));
}

TEST_CASE("quantize_weight: neighbours stay clear of 16-bit saturation, LSTM") {
  const Model model = model_with(float_tensor("w", {2, 8, 6}, 4));  // [directions, 4 * hidden, inputs]
  Order order = columns_of(6, 8);
  for (auto& column : columns_of(6, 8, 48)) order.push_back(std::move(column));
  check_guard(model, {.view = {16, 6}, .transpose = true, .blocks = 2}, order);
}

TEST_CASE("quantize_weight: pairs of opposite signs and lone weights never saturate") {
  const auto opposite = quantize(model_with("float[1, 4] w = {1, -1, -1, 1}"), {.avoid_saturation = true});
  CHECK(opposite.raised == 0);
  CHECK(codes_of(opposite) == std::vector<int>{127, -127, -127, 127});
  // Neighbours across two pairs do not meet.
  const auto across = quantize(model_with("float[1, 5] w = {0, 1, 1, 0, 1}"), {.avoid_saturation = true});
  CHECK(across.raised == 0);
  const auto meeting = quantize(model_with("float[1, 2] w = {1, 1}"), {.avoid_saturation = true});
  CHECK(meeting.raised == 1);
  CHECK(codes_of(meeting) == std::vector<int>{64, 64});
  const auto negative = quantize(model_with("float[1, 2] w = {-1, -1}"), {.avoid_saturation = true});
  CHECK(codes_of(negative) == std::vector<int>{-64, -64});
}

// Every code and scale of a matrix in blocks, spelled out: rows of W[n][k] in blocks of `block`.
void check_blocks(const Dims& dims, std::int64_t axis, std::int64_t block, bool transpose, DType dtype,
                  bool symmetric) {
  INFO(dims_text(dims) << " axis " << axis << " block " << block << (transpose ? " transposed" : ""));
  const Model model = model_with(float_tensor("w", dims, 9));
  const auto values = random_floats(element_count(dims).value(), 9);
  const auto weight = quantize(
      model, {.dtype = dtype, .channel_axis = axis, .symmetric = symmetric, .block = block, .transpose = transpose});
  const auto codes = codes_of(weight);
  const auto channels = static_cast<std::size_t>(dims[static_cast<std::size_t>(axis)]),
             length = values.size() / channels, size = static_cast<std::size_t>(block),
             blocks = (length + size - 1) / size;
  const bool rows = (axis == 0) != transpose;  // a row of codes is a channel
  REQUIRE(weight.scales.size() == channels * blocks);
  CHECK(weight.block_dims == (rows ? Dims{dims[static_cast<std::size_t>(axis)], static_cast<std::int64_t>(blocks)}
                                   : Dims{static_cast<std::int64_t>(blocks), dims[static_cast<std::size_t>(axis)]}));
  const CodeRange range = code_range(dtype, symmetric);
  for (std::size_t c = 0; c < channels; ++c)
    for (std::size_t b = 0; b < blocks; ++b) {
      float low = 0, high = 0;
      const auto at = [&](std::size_t k) { return axis == 0 ? c * length + k : k * channels + c; };
      for (std::size_t k = b * size; k < std::min(length, (b + 1) * size); ++k) {
        low = std::min(low, values[at(k)]);
        high = std::max(high, values[at(k)]);
      }
      const AffineParams expected = choose_affine(low, high, range, symmetric);
      const std::size_t i = rows ? c * blocks + b : b * channels + c;
      CHECK(weight.scales[i] == expected.scale);
      CHECK(weight.zero_points[i] == expected.zero_point);
      for (std::size_t k = b * size; k < std::min(length, (b + 1) * size); ++k)
        CHECK(codes[rows ? c * length + k : k * channels + c] == quantize_value(values[at(k)], expected, range));
    }
}

TEST_CASE("quantize_weight in blocks along the reduction") {
  for (const DType dtype : {DType::i4, DType::u4, DType::i8})
    for (const bool symmetric : {true, false})
      for (const bool transpose : {false, true}) {
        check_blocks({32, 5}, 1, 16, transpose, dtype, symmetric);
        check_blocks({5, 32}, 0, 16, transpose, dtype, symmetric);
        check_blocks({37, 18}, 1, 16, transpose, dtype, symmetric);  // a short last block
        check_blocks({18, 37}, 0, 16, transpose, dtype, symmetric);
      }
}

TEST_CASE("quantize_weight: the search finds the scale of least squared error") {
  std::vector<float> values = random_floats(64, 11);
  values[3] = 4;  // one outlier spoils the full range
  std::string text;
  for (const float value : values) text += fmt::format("{}{:f}", text.empty() ? "" : ", ", value);
  const Model model = model_with("float[1, 64] w = {" + text + "}");
  for (const DType dtype : {DType::i4, DType::u4, DType::i8}) {
    const auto full = quantize(model, {.dtype = dtype, .channel_axis = 0});
    const auto best = quantize(model, {.dtype = dtype, .channel_axis = 0, .clip = WeightClip::mse});
    CHECK(best.sqnr_db >= full.sqnr_db);
    if (bit_width(dtype) == 8) continue;
    CHECK(best.sqnr_db > full.sqnr_db + 0.2F);
    // No scale of a fine grid is better by more than the step of the search costs.
    const CodeRange range = code_range(dtype, true);
    const auto error = [&](float scale) {
      double sum = 0;
      for (const float value : values) {
        const AffineParams params{scale, full.zero_point};
        const double d = double{value} - dequantize_value(quantize_value(value, params, range), params);
        sum += d * d;
      }
      return sum;
    };
    double least = error(full.scales[0]);
    for (float part = 0.37F; part < 1; part += 0.001F) least = std::min(least, error(full.scales[0] * part));
    CHECK(error(best.scales[0]) <= 1.05 * least);
  }
  const auto whole = quantize(model, {.dtype = DType::i4, .per_channel = false, .clip = WeightClip::mse});
  CHECK(whole.scales == quantize(model, {.dtype = DType::i4, .clip = WeightClip::mse}).scales);
}

TEST_CASE("quantize_weight: zero points of asymmetric weights") {
  const Model model = model_with("float[2, 4] w = {0, 1, 2, 3, -1, 0, 1, 2}");
  const auto weight = quantize(model, {.dtype = DType::u4, .channel_axis = 0, .symmetric = false});
  CHECK(weight.zero_points == std::vector<std::int32_t>{0, 5});
  CHECK(codes_of(weight) == std::vector<int>{0, 5, 10, 15, 0, 5, 10, 15});
  const Tensor zero = weight.zero_point_tensor(true);
  CHECK(zero.dtype() == DType::u4);
  CHECK(to_int64s(zero.view()).value() == std::vector<std::int64_t>{0, 5});
}

TEST_CASE("targets: names, and which of them saturate") {
  for (const auto& [name, target] : target_choices()) CHECK(target_name(target) == name);
  CHECK(saturates(Target::ort_x86));
  CHECK_FALSE(saturates(Target::ort_x86_vnni));
  CHECK_FALSE(saturates(Target::generic));
  CHECK(resolve(Target::automatic) != Target::automatic);
  CHECK(saturates(Target::automatic) == (resolve(Target::automatic) == Target::ort_x86));
}

}  // namespace
}  // namespace onnxpress::testing
