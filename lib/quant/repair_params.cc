// Repairs that change scales and zero points.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "ir/rewriter.h"
#include "quant/qdq_view.h"
#include "quant/repair.h"

namespace onnxpress::repair {
namespace {

std::string add_constant(Rewriter& rewriter, std::string_view base, Tensor value) {
  std::string name = rewriter.fresh_value(base);
  rewriter.add_initializer(name, std::move(value));
  return name;
}

// A QuantizeLinear and the DequantizeLinears behind it: they change together or not at all.
struct Pair {
  Node quantize;
  std::vector<Node> dequantizes;
  AffineParams params;
  DType type = DType::undefined;
};

// Empty when the codes are read by anything else, or the parameters differ or are not scalar constants.
std::optional<Pair> pair_of(const Node& quantize) {
  const auto params = scalar_params(quantize);
  const std::vector<Node> behind = dequantizes_of(quantize.graph(), quantize.output(0));
  if (!params || behind.empty()) return std::nullopt;
  const DType type = codes_type(quantize);
  for (const Node& dq : behind)
    if (scalar_params(dq) != params || codes_type(dq) != type) return std::nullopt;
  return Pair{quantize, behind, *params, type};
}

void set_params(Rewriter& rewriter, const Pair& pair, std::string_view scale, std::string_view zero_point) {
  std::vector<Node> all = pair.dequantizes;
  all.push_back(pair.quantize);
  for (const Node& node : all) {
    rewriter.set_input(node, 1, scale);
    rewriter.set_input(node, 2, zero_point);
  }
}

}  // namespace

Result<bool> write_zero_points(Graph& graph, PassContext& context) {
  Rewriter rewriter(graph);
  std::map<std::pair<DType, Dims>, std::string> zeros;
  for (const Node& node : graph.nodes()) {
    if ((!is_quantize(node) && !is_dequantize(node)) || !node.input(2).empty()) continue;
    const DType type = codes_type(node);
    const auto scale = graph.constant_type(node.input(1));
    if (bit_width(type) == 0 || type == DType::i32 || !is_integer(type) || !context.selected(node)) continue;
    if (!scale) {
      context.skipped(node, "zero point left out, and its scale is not a constant");
      continue;
    }
    std::string& name = zeros[{type, scale->second}];
    if (name.empty()) name = add_constant(rewriter, "zero_point", Tensor(type, scale->second));
    rewriter.set_input(node, 2, name);
    context.done(node, "zero point written: 0");
  }
  return rewriter.commit();
}

namespace {

// Constants that meet activations in a kernel that wants one type on all sides.
bool meets_activations(const Node& reader) {
  constexpr std::array<std::string_view, 4> kSameType = {"Add", "Mul", "Concat", "Where"};
  return reader && reader.domain().empty() && std::ranges::contains(kSameType, reader.op());
}

Result<Tensor> shifted(const Tensor& codes) {
  Tensor out(DType::u8, codes.dims());
  const auto from = codes.bytes();
  const auto to = out.mutable_bytes();
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i] ^ std::byte{0x80};  // + 128
  return out;
}

Status shift_constant(Rewriter& rewriter, const Node& dequantize) {
  OP_LET(const auto codes, dequantize.graph().constant(dequantize.input(0)));
  OP_LET(Tensor moved, shifted(*codes));
  rewriter.set_input(dequantize, 0,
                     add_constant(rewriter, std::string(dequantize.input(0)) + "_uint8", std::move(moved)));
  return {};
}

}  // namespace

Result<bool> to_uint8(Graph& graph, PassContext& context) {
  Rewriter rewriter(graph);
  std::map<std::int32_t, std::string> zero_points;
  const auto zero_point = [&](std::int32_t code) {
    std::string& name = zero_points[code];
    if (name.empty()) name = add_constant(rewriter, "zero_point_uint8", code_scalar(DType::u8, code + 128));
    return name;
  };
  for (const Node& node : graph.nodes()) {
    if (is_quantize(node) && codes_type(node) == DType::i8) {
      if (graph.is_constant(node.input(0)) || !context.selected(node)) continue;
      const auto pair = pair_of(node);
      if (!pair || node.input(2).empty()) {
        context.skipped(node, "its int8 codes are read by other nodes than DequantizeLinear of the same scale");
        continue;
      }
      set_params(rewriter, *pair, node.input(1), zero_point(pair->params.zero_point));
      if (node.has_attr("output_dtype")) rewriter.remove_attribute(node, "output_dtype");
      rewriter.forget_type(node.output(0));
      context.done(node, "uint8 instead of int8: codes + 128, the same values");
    } else if (is_dequantize(node) && codes_type(node) == DType::i8 && graph.is_constant(node.input(0))) {
      const auto params = scalar_params(node);
      const auto& uses = graph.uses(node.output(0));
      if (!params || !std::ranges::any_of(uses, [](const Use& use) { return meets_activations(use.node); })) continue;
      if (!context.selected(node)) continue;
      OP_TRY(shift_constant(rewriter, node));
      rewriter.set_input(node, 2, zero_point(params->zero_point));
      context.done(node, "uint8 instead of int8: codes + 128, the same values");
    }
  }
  return rewriter.commit();
}

namespace {

// Codes that stay within [low, high] and reach as far as before: min and max of the codes are its ends.
std::optional<AffineParams> within(const AffineParams& old, DType type, std::pair<double, double> bounds) {
  const CodeRange codes = code_range(type, false);
  const double low = std::max(static_cast<double>(codes.min - old.zero_point) * old.scale, bounds.first);
  const double high = std::min(static_cast<double>(codes.max - old.zero_point) * old.scale, bounds.second);
  if (low > 0 || high <= 0) return std::nullopt;  // 0 must have a code
  AffineParams params = choose_affine(static_cast<float>(low), static_cast<float>(high), codes, false);
  const auto reaches = [&](double bound, std::int32_t code, bool lower) {
    if (std::isinf(bound)) return true;
    const double at = std::rint(static_cast<double>(static_cast<float>(bound) / params.scale)) + params.zero_point;
    return lower ? at <= code : at >= code;
  };
  if (!reaches(bounds.first, codes.min, true) || !reaches(bounds.second, codes.max, false)) return std::nullopt;
  return params;
}

bool is_absorbed(const AffineParams& params, DType type, const Node& clip, std::pair<double, double> bounds) {
  const CodeRange codes = code_range(type, false);
  if (clip.is("Relu")) return params.zero_point == codes.min;
  const auto code = [&](double bound) {
    return std::isinf(bound)
               ? bound
               : std::rint(static_cast<double>(static_cast<float>(bound) / params.scale)) + params.zero_point;
  };
  return code(bounds.first) <= codes.min && code(bounds.second) >= codes.max;
}

// Runs in integers when what is behind it is codes.
bool is_kernel(const Node& node) {
  constexpr std::array<std::string_view, 10> kKernels = {
      "Conv", "MatMul", "Gemm", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Where"};
  return node && node.domain().empty() && std::ranges::contains(kKernels, node.op()) && dequantize_before(node, 0);
}

}  // namespace

Result<bool> absorb_clips(Graph& graph, PassContext& context) {
  Rewriter rewriter(graph);
  for (const Node& clip : graph.nodes()) {
    const auto bounds = clip_bounds(clip);
    if (!bounds || !is_kernel(graph.producer(clip.input(0))) || !context.selected(clip)) continue;
    if (!only_reader(graph, clip.input(0))) continue;
    const Node quantize = only_reader(graph, clip.output(0));
    if (!is_quantize(quantize)) continue;
    const auto pair = pair_of(quantize);
    if (!pair || bit_width(pair->type) != 8) {
      context.skipped(clip, "the codes behind it have no single scale, or are read elsewhere");
      continue;
    }
    if (is_absorbed(pair->params, pair->type, clip, *bounds)) continue;
    const auto params = within(pair->params, pair->type, *bounds);
    if (!params) {
      context.skipped(clip,
                      fmt::format("no 8-bit scale fits the range [{:.6g}, {:.6g}]", bounds->first, bounds->second));
      continue;
    }
    const std::string root(quantize.output(0));
    set_params(rewriter, *pair,
               add_constant(rewriter, root + "_scale", Tensor::scalar<float>(DType::f32, params->scale)),
               add_constant(rewriter, root + "_zero_point", code_scalar(pair->type, params->zero_point)));
    context.done(clip, fmt::format("absorbed: the codes behind it have scale {:.6g}, zero point {} (were {:.6g}, {})",
                                   params->scale, params->zero_point, pair->params.scale, pair->params.zero_point));
  }
  return rewriter.commit();
}

Result<bool> unify_scales(Graph& graph, PassContext& context) {
  Rewriter rewriter(graph);
  std::map<std::string, std::pair<std::string, std::string>> now;  // codes -> scale, zero point they have by now
  for (const Node& node : graph.nodes()) {
    const bool split = node.is("Split");
    if ((!is_movement(node) && !split) || !context.selected(node)) continue;
    const Node from = dequantize_before(node, 0);
    if (!from || !scalar_params(from) || from.input(2).empty()) continue;
    auto wanted = std::pair{std::string(from.input(1)), std::string(from.input(2))};
    if (const auto changed = now.find(std::string(from.input(0))); changed != now.end()) wanted = changed->second;
    for (std::size_t k = 0; k < (split ? node.output_count() : 1); ++k) {
      const Node quantize = only_reader(graph, node.output(k));
      if (!is_quantize(quantize)) continue;
      const auto pair = pair_of(quantize);
      const bool moved = now.contains(std::string(from.input(0)));
      if (pair && !moved && pair->params == *scalar_params(from) && pair->type == codes_type(from)) continue;
      if (!pair || pair->type != codes_type(from)) {
        context.skipped(node, "the codes behind it are of another type, have no single scale, or are read elsewhere");
        continue;
      }
      set_params(rewriter, *pair, wanted.first, wanted.second);
      now[std::string(quantize.output(0))] = wanted;
      context.done(
          node, fmt::format("one scale on both sides: {:.6g} behind it becomes that of its input", pair->params.scale));
    }
  }
  return rewriter.commit();
}

}  // namespace onnxpress::repair
