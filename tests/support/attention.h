// One layer of attention in the forms that exporters and ONNX Runtime's fusions write it.
#pragma once

#include <string>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {

// x [N, sequence, model] -> y [N, sequence, model]; every head is `width` wide.
struct AttentionShape {
  std::int64_t heads = 4, kv_heads = 4, width = 4;
  std::int64_t model = 8, sequence = 3;

  std::int64_t queries() const { return heads * width; }
  std::int64_t keys() const { return kv_heads * width; }
  std::int64_t repeats() const { return heads / kv_heads; }
};

inline std::string int64_tensor(std::string_view name, const std::vector<std::int64_t>& values) {
  std::string text = "int64[" + std::to_string(values.size()) + "] " + std::string(name) + " = {";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  return text + "}";
}

inline const std::string kAttentionHead = "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> ";

// The model text around the nodes that make y from x; `constants` are initializers without the last comma.
inline std::string attention_model(const AttentionShape& shape, const std::string& constants, const std::string& nodes,
                                   const std::string& more_inputs = "", const std::string& more_outputs = "") {
  const std::string type = "float[N, " + std::to_string(shape.sequence) + ", " + std::to_string(shape.model) + "]";
  return kAttentionHead + "g (" + type + " x" + more_inputs + ") => (" + type + " y" + more_outputs + ") <" +
         constants + "> { " + nodes + " }";
}

// Weights and biases of the four projections.
inline std::string projections(const AttentionShape& shape) {
  return float_tensor("wq", {shape.model, shape.queries()}, 1) + ", " + float_tensor("bq", {shape.queries()}, 2) +
         ", " + float_tensor("wk", {shape.model, shape.keys()}, 3) + ", " + float_tensor("bk", {shape.keys()}, 4) +
         ", " + float_tensor("wv", {shape.model, shape.keys()}, 5) + ", " + float_tensor("bv", {shape.keys()}, 6) +
         ", " + float_tensor("wo", {shape.queries(), shape.model}, 7) + ", " + float_tensor("bo", {shape.model}, 8);
}
inline const std::string kProjected =
    "qm = MatMul(x, wq) qp = Add(qm, bq) km = MatMul(x, wk) kp = Add(km, bk) vm = MatMul(x, wv) vp = Add(vm, bv) ";

// qp, kp, vp [N, S, heads * width] -> q, k, v [N, heads, S, width]
inline std::string split_heads(const AttentionShape& shape, std::string& constants) {
  constants += ", " + int64_tensor("q_dims", {0, 0, shape.heads, shape.width}) + ", " +
               int64_tensor("k_dims", {0, 0, shape.kv_heads, shape.width});
  return "q0 = Reshape(qp, q_dims) q = Transpose <perm = [0, 2, 1, 3]> (q0) "
         "k0 = Reshape(kp, k_dims) k = Transpose <perm = [0, 2, 1, 3]> (k0) "
         "v0 = Reshape(vp, k_dims) v = Transpose <perm = [0, 2, 1, 3]> (v0) ";
}

// From q, k, v to y; `biased` is a node that makes s from the scaled scores s1.
inline std::string attend(const AttentionShape& shape, std::string& constants, const std::string& q = "q",
                          const std::string& k = "k", const std::string& v = "v",
                          const std::string& biased = "s = Identity(s1) ") {
  constants += ", float scale = {0.5}, " + int64_tensor("o_dims", {0, 0, shape.queries()});
  return "kt = Transpose <perm = [0, 1, 3, 2]> (" + k + ") s0 = MatMul(" + q + ", kt) s1 = Mul(s0, scale) " + biased +
         "p = Softmax <axis = -1> (s) o0 = MatMul(p, " + v + ") o1 = Transpose <perm = [0, 2, 1, 3]> (o0) " +
         "o = Reshape(o1, o_dims) ym = MatMul(o, wo) y = Add(ym, bo)";
}

// Separate projections, as torch.nn modules export.
inline std::string raw_attention(const AttentionShape& shape = {}) {
  std::string constants = projections(shape);
  const std::string heads = split_heads(shape, constants);
  const std::string nodes = kProjected + heads + attend(shape, constants);
  return attention_model(shape, constants, nodes);
}

// The same with a table of relative biases [1, heads, S, S] and a factor for each head.
inline std::string biased_attention(const AttentionShape& shape = {}) {
  std::string constants = projections(shape) + ", " +
                          float_tensor("table", {1, shape.heads, shape.sequence, shape.sequence}, 9) + ", " +
                          float_tensor("gate", {shape.heads, 1, 1}, 10);
  const std::string heads = split_heads(shape, constants);
  const std::string nodes =
      kProjected + heads + attend(shape, constants, "q", "k", "v", "s2 = Add(s1, table) s = Mul(s2, gate) ");
  return attention_model(shape, constants, nodes);
}

enum class Unpack { gather, split };

// One projection for the three: [N, S, 3, heads, width], as timm and torchvision have it.
inline std::string packed_attention(Unpack unpack, const AttentionShape& shape = {}) {
  std::string constants =
      float_tensor("w", {shape.model, 3 * shape.queries()}, 1) + ", " + float_tensor("b", {3 * shape.queries()}, 2) +
      ", " + float_tensor("wo", {shape.queries(), shape.model}, 7) + ", " + float_tensor("bo", {shape.model}, 8) +
      ", " + int64_tensor("dims", {0, 0, 3, shape.heads, shape.width});
  std::string nodes = "m = MatMul(x, w) a = Add(m, b) r = Reshape(a, dims) ";
  if (unpack == Unpack::gather) {
    constants += ", int64 zero = {0}, int64 one = {1}, int64 two = {2}";
    nodes +=
        "t = Transpose <perm = [2, 0, 3, 1, 4]> (r) q = Gather <axis = 0> (t, zero) k = Gather <axis = 0> (t, one) "
        "v = Gather <axis = 0> (t, two) ";
  } else {
    constants += ", " + int64_tensor("ones", {1, 1, 1}) + ", " + int64_tensor("axis", {2});
    nodes +=
        "q0, k0, v0 = Split <axis = 2> (r, ones) "
        "q1 = Squeeze(q0, axis) q = Transpose <perm = [0, 2, 1, 3]> (q1) "
        "k1 = Squeeze(k0, axis) k = Transpose <perm = [0, 2, 1, 3]> (k1) "
        "v1 = Squeeze(v0, axis) v = Transpose <perm = [0, 2, 1, 3]> (v1) ";
  }
  nodes += attend(shape, constants);
  return attention_model(shape, constants, nodes);
}

// exported: an Expand whose shape torch computes from that of x, behind a choice between -1 and 1.
enum class Repeat { expand, tile, gather, exported };

// Fewer heads for keys and values, each read by several query heads.
inline std::string grouped_attention(Repeat repeat, const AttentionShape& shape = {.heads = 6, .kv_heads = 3}) {
  std::string constants = projections(shape);
  std::string nodes = kProjected + split_heads(shape, constants);
  if (repeat == Repeat::gather) {
    std::vector<std::int64_t> from;
    for (std::int64_t head = 0; head < shape.heads; ++head) from.push_back(head / shape.repeats());
    constants += ", " + int64_tensor("from", from);
    nodes += "kr = Gather <axis = 1> (k, from) vr = Gather <axis = 1> (v, from) ";
  } else {
    const std::string op = repeat == Repeat::tile ? "Tile" : "Expand";
    const std::string times = repeat == Repeat::exported ? "chosen" : "times";
    constants += ", " + int64_tensor("axis", {2}) + ", " + int64_tensor("times", {1, 1, shape.repeats(), 1, 1}) + ", " +
                 int64_tensor("all", {-1, shape.heads, shape.sequence, shape.width});
    if (repeat == Repeat::exported) {
      constants += ", " + int64_tensor("kv", {shape.kv_heads}) + ", " + int64_tensor("repeats", {shape.repeats()}) +
                   ", " + int64_tensor("rest", {shape.sequence, shape.width}) + ", " + int64_tensor("minus", {-1});
      nodes +=
          "n = Shape <start = 0, end = 1> (x) joined = Concat <axis = 0> (n, kv, repeats, rest) "
          "flat = Reshape(joined, minus) length = Shape(flat) "
          "ones = ConstantOfShape <value = int64[1] {1}> (length) free = Mul(ones, minus) "
          "test = Equal(flat, free) chosen = Where(test, ones, flat) ";
    }
    for (const std::string t : {"k", "v"})
      nodes += t + "u = Unsqueeze(" + t + ", axis) " + t + "e = " + op + "(" + t + "u, " + times + ") " + t +
               "r = Reshape(" + t + "e, all) ";
  }
  nodes += attend(shape, constants, "q", "kr", "vr");
  return attention_model(shape, constants, nodes);
}

// Rotary positions, halves of a head turned against each other.
inline std::string rotary_attention(const AttentionShape& shape = {}) {
  std::string constants = projections(shape) + ", " + float_tensor("cos", {shape.sequence, shape.width}, 11) + ", " +
                          float_tensor("sin", {shape.sequence, shape.width}, 12) + ", " +
                          int64_tensor("halves", {shape.width / 2, shape.width / 2});
  std::string nodes = kProjected + split_heads(shape, constants);
  for (const std::string t : {"q", "k"})
    nodes += t + "a, " + t + "b = Split <axis = 3> (" + t + ", halves) " + t + "n = Neg(" + t + "b) " + t +
             "c = Concat <axis = -1> (" + t + "n, " + t + "a) " + t + "x = Mul(" + t + ", cos) " + t + "y = Mul(" + t +
             "c, sin) " + t + "r = Add(" + t + "x, " + t + "y) ";
  nodes += attend(shape, constants, "qr", "kr");
  return attention_model(shape, constants, nodes);
}

// com.microsoft.Attention with its packed weight. `attributes` and `inputs` are appended to those it needs.
inline std::string fused_attention(const AttentionShape& shape = {}, const std::string& attributes = "",
                                   const std::string& inputs = "", const std::string& more = "") {
  const std::string constants = float_tensor("w", {shape.model, 3 * shape.queries()}, 1) + ", " +
                                float_tensor("b", {3 * shape.queries()}, 2) + ", " +
                                float_tensor("wo", {shape.queries(), shape.model}, 7) + more;
  return attention_model(shape, constants,
                         "o = com.microsoft.Attention <num_heads = " + std::to_string(shape.heads) + attributes +
                             "> (x, w, b" + inputs + ") y = MatMul(o, wo)");
}

// com.microsoft.MultiHeadAttention on separate projections.
inline std::string fused_multi_head(const AttentionShape& shape = {}, const std::string& inputs = "",
                                    const std::string& more = "") {
  const std::string constants = projections(shape) + more;
  return attention_model(shape, constants,
                         kProjected +
                             "o = com.microsoft.MultiHeadAttention <num_heads = " + std::to_string(shape.heads) +
                             "> (qp, kp, vp" + inputs + ") ym = MatMul(o, wo) y = Add(ym, bo)");
}

// com.microsoft.GroupQueryAttention with rotary positions, on separate or packed projections. The runtime wants heads
// whose width is a multiple of 16 for these, and one batch row.
inline std::string fused_grouped(bool packed, const AttentionShape& shape = {.heads = 6, .kv_heads = 3, .width = 16}) {
  const std::string attributes = "<num_heads = " + std::to_string(shape.heads) +
                                 ", kv_num_heads = " + std::to_string(shape.kv_heads) + ", do_rotary = 1> ";
  const std::string cache = ", int32[1] lengths = {" + std::to_string(shape.sequence - 1) + "}, int32[1] total = {" +
                            std::to_string(shape.sequence) + "}, " + float_tensor("cos", {8, shape.width / 2}, 11) +
                            ", " + float_tensor("sin", {8, shape.width / 2}, 12);
  std::string constants, nodes;
  if (packed) {
    constants = float_tensor("w", {shape.model, shape.queries() + 2 * shape.keys()}, 1) + ", " +
                float_tensor("wo", {shape.queries(), shape.model}, 7) + cache;
    nodes = "a = MatMul(x, w) o, pk, pv = com.microsoft.GroupQueryAttention " + attributes +
            "(a, , , , , lengths, total, cos, sin) y = MatMul(o, wo)";
  } else {
    constants = projections(shape) + cache;
    nodes = kProjected + "o, pk, pv = com.microsoft.GroupQueryAttention " + attributes +
            "(qp, kp, vp, , , lengths, total, cos, sin) ym = MatMul(o, wo) y = Add(ym, bo)";
  }
  return attention_model(shape, constants, nodes);
}

}  // namespace onnxpress::testing
