#include "contract/models.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "base/text.h"
#include "io/load.h"
#include "io/save.h"
#include "ir/rewriter.h"
#include "support/models.h"
#include "support/wire.h"

namespace onnxpress::testing {
namespace {

std::string head(int opset, int ir = 8, const std::string& more = "") {
  return fmt::format("<ir_version: {}, opset_import: [\"\": {}{}]> ", ir, opset, more);
}

// "float[2,3] w = {...}" with seeded values in [low, high).
std::string weight(const std::string& name, const Dims& dims, unsigned seed, float low = -0.5F, float high = 0.5F) {
  std::vector<float> values = random_floats(static_cast<std::size_t>(*element_count(dims)), seed);
  std::vector<std::string> texts, sizes;
  for (const float value : values) texts.push_back(fmt::format("{:f}", low + (value + 1) / 2 * (high - low)));
  for (const std::int64_t dim : dims) sizes.push_back(std::to_string(dim));
  return fmt::format("float[{}] {} = {{{}}}", join(sizes, ","), name, join(texts, ", "));
}

std::string batchnorm(const std::string& name, std::int64_t channels, unsigned seed) {
  return weight(name + "_scale", {channels}, seed, 0.5F, 1.5F) + ", " + weight(name + "_bias", {channels}, seed + 1) +
         ", " + weight(name + "_mean", {channels}, seed + 2) + ", " +
         weight(name + "_var", {channels}, seed + 3, 0.5F, 2.0F);
}
std::string batchnorm_inputs(const std::string& name) {
  return fmt::format("{0}_scale, {0}_bias, {0}_mean, {0}_var", name);
}

std::string conv_residual() {
  return head(17) + "g (float[n,3,8,8] x) => (float[n,5] y) <" + weight("w1", {8, 3, 3, 3}, 1) + ", " +
         weight("b1", {8}, 2) + ", " + batchnorm("n1", 8, 3) + ", " + weight("w2", {8, 1, 3, 3}, 7) + ", " +
         batchnorm("n2", 8, 8) + ", " + weight("w3", {8, 8, 1, 1}, 12) + ", " + weight("wf", {5, 8}, 13) + ", " +
         weight("bf", {5}, 14) + "> { c1 = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w1, b1) " +
         "m1 = BatchNormalization (c1, " + batchnorm_inputs("n1") + ") r1 = Relu (m1) " +
         "c2 = Conv <group = 8, pads = [1, 1, 1, 1]> (r1, w2) m2 = BatchNormalization <epsilon = 0.01> (c2, " +
         batchnorm_inputs("n2") + ") c3 = Conv (m2, w3) s = Add (c3, r1) r2 = Relu (s) " +
         "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2) a = GlobalAveragePool (p) f = Flatten (a) " +
         "z = Gemm <transB = 1> (f, wf, bf) y = Softmax (z) }";
}

std::string mlp() {
  return head(13) + "g (float[n,16] x) => (float[n,4] y) <" + weight("w1", {16, 40}, 21) + ", " +
         weight("b1", {40}, 22) + ", " + weight("w2", {24, 40}, 23) + ", " + weight("b2", {24}, 24) + ", " +
         weight("w3", {24, 4}, 25) + "> { g1 = Gemm <alpha = 0.5, beta = 2.0> (x, w1, b1) r1 = Relu (g1) " +
         "g2 = Gemm <transB = 1> (r1, w2, b2) r2 = Sigmoid (g2) y = MatMul (r2, w3) }";
}

std::string attention() {
  return head(17) + "g (float[1,6,16] x) => (float[1,6,16] y) <" + weight("wq", {16, 16}, 31) + ", " +
         weight("bq", {16}, 32) + ", " + weight("wk", {16, 16}, 33) + ", " + weight("wv", {16, 16}, 34) + ", " +
         weight("wo", {16, 16}, 35) + ", " + weight("bo", {16}, 36) +
         ", int64[4] heads = {0, 0, 2, 8}, int64[3] flat = {0, 0, 16}, float scale = {0.35}> "
         "{ mq = MatMul (x, wq) q = Add (mq, bq) k = MatMul (x, wk) v = MatMul (x, wv) "
         "q4 = Reshape (q, heads) k4 = Reshape (k, heads) v4 = Reshape (v, heads) "
         "qt = Transpose <perm = [0, 2, 1, 3]> (q4) kt = Transpose <perm = [0, 2, 3, 1]> (k4) "
         "vt = Transpose <perm = [0, 2, 1, 3]> (v4) dots = MatMul (qt, kt) scaled = Mul (dots, scale) "
         "p = Softmax <axis = -1> (scaled) o = MatMul (p, vt) ot = Transpose <perm = [0, 2, 1, 3]> (o) "
         "of = Reshape (ot, flat) mo = MatMul (of, wo) bias = Add (bo, mo) y = Add (bias, x) }";
}

std::string lstm() {
  return head(14) + "g (float[5,1,6] x) => (float[1,4] y) <" + weight("W", {1, 32, 6}, 41) + ", " +
         weight("R", {1, 32, 8}, 42) + ", " + weight("B", {1, 64}, 43) + ", " + weight("wf", {8, 4}, 44) +
         ", int64[1] zero = {0}> { all, last, cell = LSTM <hidden_size = 8> (x, W, R, B) " +
         "h = Squeeze (last, zero) y = MatMul (h, wf) }";
}

std::string if_captures() {
  return head(17) + "g (float[2,8] x, bool c) => (float[2,8] y) <" + weight("w", {8, 8}, 51) + ", " +
         weight("u", {8, 8}, 52) +
         "> { i = Identity (x) t = MatMul (i, w) k = Constant <value_float = 2.0> () "
         "y = If (c) <then_branch = p () => (float[2,8] a) <" +
         weight("inner", {8}, 53) +
         "> { m = MatMul (t, u) j = Identity (m) d = Exp (x) a = Add (j, inner) }, "
         "else_branch = q () => (float[2,8] b) { n = Mul (t, k) o = MatMul (n, w) b = Relu (o) }> }";
}

std::string loop() {
  return head(17) + "g (float[2,8] x) => (float[2,8] y, float[n,2,8] all) <" + weight("w", {8, 8}, 61) +
         ", int64 trips = {3}, bool go = {1}> { t = Tanh (x) y, all = Loop (trips, go, x) "
         "<body = b (int64 i, bool ci, float[2,8] s) => (bool co, float[2,8] r, float[2,8] o) " +
         "{ co = Identity (ci) m = MatMul (s, w) r = Add (m, t) o = Identity (r) }> }";
}

std::string scan() {
  return head(17) + "g (float[4,8] x) => (float[8] y, float[4,8] all) <" + weight("w", {8, 8}, 71) + ", " +
         weight("start", {8}, 72) +
         "> { y, all = Scan <num_scan_inputs = 1, body = b (float[8] s, float[8] v) => (float[8] r, float[8] o) "
         "{ m = MatMul (v, w) r = Add (s, m) o = Identity (r) }> (start, x) }";
}

std::string with_function() {
  return "<ir_version: 8, opset_import: [\"\": 17, \"local.keep\": 1]> g (float[2,8] x) => (float[2,8] y) <" +
         weight("w", {8, 8}, 81) +
         "> { t = local.keep.block_keep (x, w) i = Identity (t) y = Relu (i) } "
         "<domain: \"local.keep\", opset_import: [\"\": 17]> block_keep (a, b) => (c) "
         "{ m = MatMul (a, b) i = Identity (m) k = Constant <value_float = 0.5> () c = Mul (i, k) }";
}

std::string custom_ops() {
  return head(17, 8, ", \"my.keep\": 1") + "g (float[1,4,6,6] x) => (float[1,4,6,6] y) <" +
         weight("w1", {4, 4, 3, 3}, 91) + ", " + weight("w2", {4, 4, 3, 3}, 92) + ", " + batchnorm("n", 4, 93) + ", " +
         weight("table", {4, 4}, 97) + "> { c1 = Conv <pads = [1, 1, 1, 1]> (x, w1) " +
         "u1, u2 = my.keep.Strange_keep <mode = \"mode_keep\", depth = 3> (c1, table) side = my.keep.Log_keep (c1) " +
         "c2 = Conv <pads = [1, 1, 1, 1]> (u1, w2) m = BatchNormalization (c2, " + batchnorm_inputs("n") +
         ") i = Identity (u2) y = Add (m, i) }";
}

// Everything that clean-up is for.
std::string clutter() {
  return head(17) + "g (float[2,4] x) => (float[2,4] y, float[2,4] same) <" + weight("a", {4}, 101) + ", " +
         weight("b", {4}, 101) + ", " + weight("unused", {4}, 102) +
         ", float one = {1}, float zero = {0}> { i = Identity (x) j = Identity (i) dead = Exp (j) deader = Neg (dead) "
         "s = Add (j, a) t = Add (j, b) u = Add (s, t) d = Dropout (u) v = Mul (d, one) w = Add (v, zero) "
         "c = Constant <value = float[4] {1, 2, 3, 4}> () e = Constant <value_floats = [0.5, 0.5, 0.5, 0.5]> () "
         "f = Mul (c, e) h = Mul (w, f) p = Transpose <perm = [0, 1]> (h) q = Relu (p) y = Relu (q) "
         "same = Identity (x) }";
}

std::string opset(int version, const std::string& clip_inputs, const std::string& clip, int ir) {
  return head(version, ir) + "g (float[1,3,6,6] x) => (float[1,10] y) <" + weight("w", {6, 3, 3, 3}, 111) + ", " +
         weight("b", {6}, 112) + ", " + batchnorm("n", 6, 113) + ", " + weight("wf", {24, 10}, 117) + ", " +
         weight("bf", {10}, 118) + clip_inputs + "> { c = Conv <strides = [2, 2], pads = [0, 0, 1, 1]> (x, w, b) " +
         "m = BatchNormalization (c, " + batchnorm_inputs("n") + ") k = " + clip +
         " p = AveragePool <kernel_shape = [2, 2], pads = [0, 0, 1, 1], strides = [2, 2]> (k) " +
         "f = Flatten (p) z = Gemm (f, wf, bf) y = Softmax (z) }";
}

// As files of IR version 3 must be: every initializer is also an input.
std::string ir3() {
  return head(8, 3) + "g (float[1,2,4,4] x, float[2,2,1,1] w, float[2] n_scale, float[2] n_bias, float[2] n_mean, " +
         "float[2] n_var, float[32,4] wf, float[4] bf) => (float[1,4] y) <" + weight("w", {2, 2, 1, 1}, 121) + ", " +
         batchnorm("n", 2, 122) + ", " + weight("wf", {32, 4}, 126) + ", " + weight("bf", {4}, 127) +
         "> { c = Conv (x, w) m = BatchNormalization (c, " + batchnorm_inputs("n") +
         ") i = Identity (m) f = Flatten (i) y = Gemm (f, wf, bf) }";
}

std::string half_weights() {
  const std::string bits = "{15360, 14336, 47104, 13312, 46080, 14848, 15104, 45056}";  // 1, 0.5, -0.5, ...
  return head(17) + "g (float[2,8] x) => (float[2,1] y, float16[2,1] z) <float16[8,1] h = " + bits +
         "> { w = Cast <to = 1> (h) y = MatMul (x, w) xh = Cast <to = 10> (x) z = MatMul (xh, h) }";
}

// Two values in each number, the first in the low half: w = 1, -2, 3, -4 and so on, u = 0, 1, 2 and so on.
std::string int4_weights() {
  return head(21, 10) +
         "g (float[2,4] x) => (float[2,2] y, float[2,3] z) <int4[4,2] w = {225, 195, 165, 135}, "
         "float s = {0.1}, uint4[4,3] u = {16, 50, 84, 118, 152, 186}, float[3] t = {0.1, 0.2, 0.3}, "
         "uint4[3] zp = {135, 9}> { wf = DequantizeLinear (w, s) y = MatMul (x, wf) "
         "uf = DequantizeLinear <axis = 1> (u, t, zp) z = MatMul (x, uf) }";
}

std::string quantized() {
  return head(13) + "g (float[1,4] x) => (float[1,2] y) <float s = {0.02}, uint8 zp = {128}, " +
         "int8[4,2] w = {1, -2, 3, -4, 50, -60, 70, -80}, float ws = {0.01}, int8 wz = {0}> "
         "{ q = QuantizeLinear (x, s, zp) d = DequantizeLinear (q, s, zp) wf = DequantizeLinear (w, ws, wz) "
         "m = MatMul (d, wf) mq = QuantizeLinear (m, s, zp) y = DequantizeLinear (mq, s, zp) }";
}

std::string shared_and_public() {
  return head(17) + "g (float[2,8] x, float[8,8] over) => (float[2,8] y, float[8,8] shown, float[2,8] z) <" +
         weight("over", {8, 8}, 131) + ", " + weight("shown", {8, 8}, 132) + ", " + weight("both", {8, 8}, 133) +
         "> { a = MatMul (x, over) b = MatMul (a, shown) c = MatMul (b, both) d = Identity (both) e = MatMul (c, d) "
         "y = Gemm (e, both) f = Constant <value = float[8] {1, 2, 3, 4, 5, 6, 7, 8}> () z = Add (e, f) }";
}

std::string unknown_shapes() {
  return head(17) + "g (float[n,m] x, int64[k] shape) => (float y) <" + weight("w", {1, 8}, 141) +
         "> { r = Reshape (x, shape) z = NonZero (r) c = Cast <to = 1> (z) t = Transpose (c) "
         "s = ReduceSum <keepdims = 0> (t) u = MatMul (x, w) v = ReduceSum <keepdims = 0> (u) y = Add (s, v) }";
}

Model load(const std::string& bytes, const std::string& name) {
  auto model = load_model_bytes(std::as_bytes(std::span(bytes)), name);
  INFO((model ? "" : model.error().text()));
  REQUIRE(model);
  return std::move(*model);
}

std::uint64_t varint_at(const std::string& bytes, std::size_t& at) {
  std::uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) return value;
  }
}

// Appends fields to the GraphProto (field 7) of serialized model bytes.
std::string with_graph_fields(const std::string& bytes, const std::string& fields) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t start = at;
    const std::uint64_t tag = varint_at(bytes, at);
    const std::uint64_t length = varint_at(bytes, at);  // the value itself when the field is a varint
    if ((tag & 7) == 2) at += static_cast<std::size_t>(length);
    if (tag == (7 << 3 | 2))
      out += wire_bytes(7, bytes.substr(at - static_cast<std::size_t>(length), length) + fields);
    else
      out += bytes.substr(start, at - start);
  }
  return out;
}

std::string value_info(const std::string& name, std::uint64_t rows, std::uint64_t columns, const std::string& more) {
  const std::string shape = wire_bytes(2, wire_bytes(1, wire_int(1, rows)) + wire_bytes(1, wire_int(1, columns)));
  return wire_bytes(1, name) + wire_bytes(2, wire_bytes(1, wire_int(1, 1) + shape)) + more;
}

std::string property(std::uint64_t field, const std::string& key, const std::string& value) {
  return wire_bytes(field, wire_bytes(1, key) + wire_bytes(2, value));
}

// What the text syntax has no place for: node names, documentation, metadata and unknown fields at every level, a
// sparse initializer, value_info, raw_data beside float_data.
TestModel decorated() {
  const std::string text =
      "<ir_version: 10, opset_import: [\"\": 17], producer_name: \"producer_keep\", doc_string: \"model doc_keep\", "
      "metadata_props: [\"model key_keep\": \"model value_keep\"]> g (float[2,4] x) => (float[2,4] y) <" +
      weight("w", {4, 4}, 151) + "> { i = Identity (x) m = MatMul (i, w) y = Sigmoid (m) }";
  const std::string unknown = wire_bytes(900, "unknown_keep");
  const std::string node = wire_bytes(1, "y") + wire_bytes(2, "z") + wire_bytes(3, "node name_keep") +
                           wire_bytes(4, "Tanh") + wire_bytes(6, "node doc_keep") +
                           property(9, "node key_keep", "node value_keep") + wire_bytes(900, "unknown in node_keep");
  const std::string add = wire_bytes(1, "z") + wire_bytes(1, "sparse_keep") + wire_bytes(2, "p") + wire_bytes(4, "Add");
  const std::string mul = wire_bytes(1, "p") + wire_bytes(1, "raw_keep") + wire_bytes(2, "q") + wire_bytes(4, "Mul");
  const std::string values = wire_int(1, 2) + wire_int(2, 1) + wire_bytes(8, "sparse_keep") +
                             wire_bytes(9, std::string("\0\0\x80\x3F\0\0\0\x40", 8));
  const std::string indices = wire_int(1, 2) + wire_int(2, 7) + wire_bytes(7, std::string("\1\6", 2));
  const std::string sparse = wire_bytes(1, values) + wire_bytes(2, indices) + wire_int(3, 2) + wire_int(3, 4);
  const std::string raw = wire_int(1, 4) + wire_int(2, 1) + wire_bytes(8, "raw_keep") +
                          wire_bytes(9, std::string("\0\0\0\x3F\0\0\0\x3F\0\0\x80\x3F\0\0\0\x40", 16)) +
                          wire_bytes(12, "tensor doc_keep") + wire_bytes(900, "unknown in tensor_keep");
  const std::string fields =
      wire_bytes(1, node) + wire_bytes(1, add) + wire_bytes(1, mul) + wire_bytes(5, raw) +
      wire_bytes(10, "graph doc_keep") + wire_bytes(12, value_info("q", 2, 4, wire_bytes(3, "output doc_keep"))) +
      wire_bytes(13, value_info("z", 2, 4, wire_bytes(3, "value doc_keep"))) + wire_bytes(15, sparse) +
      property(16, "graph key_keep", "graph value_keep") + wire_bytes(900, "unknown in graph_keep");
  auto bytes = serialize_model(parse(text));
  REQUIRE(bytes);
  return {.name = "decorated",
          .model = load(with_graph_fields(*bytes, fields) + unknown, "decorated"),
          .markers = {"producer_keep",   "model doc_keep",         "model key_keep",   "model value_keep",
                      "unknown_keep",    "node name_keep",         "node doc_keep",    "node key_keep",
                      "node value_keep", "unknown in node_keep",   "sparse_keep",      "raw_keep",
                      "tensor doc_keep", "unknown in tensor_keep", "graph doc_keep",   "output doc_keep",
                      "value doc_keep",  "graph key_keep",         "graph value_keep", "unknown in graph_keep"}};
}

// Weights above TensorStore's inline limit, and no longer in the typed field the text parser puts them in, so that they
// really are read from the second file.
Model external_model(const std::string& folder) {
  Model model = parse(head(17) + "g (float[n,32] x) => (float[n,8] y) <" + weight("w1", {32, 64}, 161) + ", " +
                      weight("b1", {64}, 162) + ", " + weight("w2", {64, 8}, 163) +
                      "> { m = MatMul (x, w1) a = Add (m, b1) r = Relu (a) y = MatMul (r, w2) }");
  Rewriter rewriter(model.main());
  for (const Initializer& initializer : model.main().initializers()) {
    auto value = initializer.read();
    REQUIRE(value);
    rewriter.set_initializer(initializer, std::move(*value));
  }
  REQUIRE(rewriter.commit());
  const std::string path = folder + "/external.onnx";
  REQUIRE(save_model(model, path, {.overwrite = true, .data = SaveOptions::Data::external, .alignment = 64}));
  auto loaded = load_model(path);
  REQUIRE(loaded);
  REQUIRE(loaded->store().any_external());
  return std::move(*loaded);
}

void add_trained(std::vector<TestModel>& models) {
  const std::filesystem::path testdata = std::filesystem::path(ONNXPRESS_SOURCE_DIR) / "testdata";
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(testdata / "models"))
    if (entry.path().extension() == ".onnx") files.push_back(entry.path());
  std::ranges::sort(files);
  for (const auto& file : files) {
    auto model = load_model(file.string());
    INFO((model ? "" : model.error().text()));
    REQUIRE(model);
    const bool digits = file.filename().string().starts_with("digits");
    models.push_back({.name = file.filename().string(),
                      .model = std::move(*model),
                      .data = digits ? (testdata / "data/digits_train.npz").string() : "random:seed=1",
                      .trained = true});
  }
}

}  // namespace

std::vector<TestModel> contract_models(const std::string& folder) {
  std::vector<TestModel> models;
  const auto add = [&](const char* name, const std::string& text, bool in_reference = false) {
    INFO(name);
    models.push_back({.name = name, .model = parse(text), .in_reference = in_reference});
  };
  add("conv_residual", conv_residual(), true);
  add("mlp", mlp(), true);
  add("attention", attention(), true);
  add("if_captures", if_captures(), true);
  add("clutter", clutter(), true);
  add("opset9", opset(9, "", "Clip <min = 0.0, max = 6.0> (m)", 4), true);
  add("opset11", opset(11, ", float low = {0}, float high = {6}", "Clip (m, low, high)", 6), true);
  add("opset13", opset(13, ", float low = {0}", "Clip (m, low)", 7), true);
  add("opset21", opset(21, ", float high = {6}", "Clip (m, , high)", 10), true);
  add("ir3", ir3(), true);
  add("shared_and_public", shared_and_public(), true);
  add("copy", head(17) + "g (float[2] x) => (float[2] y, float[2] k) <float[2] k = {1, 2}> { y = Identity (x) }", true);
  add("lstm", lstm());
  add("loop", loop());
  add("scan", scan());
  add("half_weights", half_weights());
  add("int4_weights", int4_weights());
  add("quantized", quantized());
  add("unknown_shapes", unknown_shapes());
  add("function", with_function());
  models.back().markers = {"local.keep", "block_keep"};
  add("custom_ops", custom_ops());
  models.back().markers = {"my.keep", "Strange_keep", "Log_keep", "mode_keep", "depth"};
  models.push_back(decorated());
  models.push_back(
      {.name = "unknown_fields", .model = load(hand_made_model(), "unknown_fields"), .markers = {"from the future"}});
  models.push_back({.name = "external", .model = external_model(folder), .in_reference = true});
  add_trained(models);
  return models;
}

}  // namespace onnxpress::testing
