// Groups of DequantizeLinear, one node and QuantizeLinear that become one integer kernel.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "quant/runtime_steps.h"

namespace onnxpress::runtime {
namespace {

constexpr std::size_t kNone = RuntimeGraph::kNone;

bool is_16_bit(DType t) { return t == DType::i16 || t == DType::u16; }
bool is_4_bit(DType t) { return t == DType::i4 || t == DType::u4; }

struct Group {
  std::size_t target = kNone;
  std::vector<std::size_t> dequantizes = {};  // in the order of the target's inputs
  std::vector<std::size_t> quantizes = {};    // in the order of its outputs
  std::size_t clip = kNone;                   // a Relu or Clip between target and its only quantize
};

class Selector {
 public:
  Selector(RuntimeGraph& graph, bool int8_activations) : graph_(graph), int8_activations_(int8_activations) {}

  bool run() {
    bool changed = false;
    for (const std::size_t at : graph_.order()) {
      if (!graph_.at(at).alive || !graph_.at(at).domain.empty()) continue;
      changed = consider(at) || changed;
    }
    return changed;
  }

 private:
  using Check = std::string (Selector::*)(const Group&) const;
  using Action = void (Selector::*)(const Group&);
  struct Rule {
    std::string_view op;
    Check check;
    Action action;
  };

  static constexpr auto rules() {
    return std::to_array<Rule>({
        {"Split", &Selector::check_split, &Selector::act_split},
        {"Resize", &Selector::check_drop, &Selector::act_drop},
        {"DepthToSpace", &Selector::check_drop, &Selector::act_drop},
        {"MaxPool", &Selector::check_maxpool, &Selector::act_drop},
        {"ReduceMax", &Selector::check_ordered, &Selector::act_drop},
        {"ReduceMin", &Selector::check_ordered, &Selector::act_drop},
        {"Expand", &Selector::check_drop, &Selector::act_drop},
        {"Flatten", &Selector::check_drop, &Selector::act_drop},
        {"Gather", &Selector::check_drop, &Selector::act_drop},
        {"GatherElements", &Selector::check_drop, &Selector::act_drop},
        {"Reshape", &Selector::check_drop, &Selector::act_drop},
        {"Slice", &Selector::check_drop, &Selector::act_drop},
        {"Squeeze", &Selector::check_drop, &Selector::act_drop},
        {"Tile", &Selector::check_drop, &Selector::act_drop},
        {"Transpose", &Selector::check_drop, &Selector::act_drop},
        {"Unsqueeze", &Selector::check_drop, &Selector::act_drop},
        {"ArgMax", &Selector::check_argmax, &Selector::act_drop_dequantize},
        {"AveragePool", &Selector::check_unary, &Selector::act_unary},
        {"LeakyRelu", &Selector::check_unary, &Selector::act_unary},
        {"GlobalAveragePool", &Selector::check_unary, &Selector::act_unary},
        {"Sigmoid", &Selector::check_unary, &Selector::act_unary},
        {"Softmax", &Selector::check_unary, &Selector::act_unary},
        {"Add", &Selector::check_variadic, &Selector::act_unary},
        {"Mul", &Selector::check_variadic, &Selector::act_unary},
        {"Concat", &Selector::check_variadic, &Selector::act_unary},
        {"Where", &Selector::check_where, &Selector::act_unary},
        {"Conv", &Selector::check_conv, &Selector::act_conv},
        {"MatMul", &Selector::check_matmul, &Selector::act_matmul},
        {"Gemm", &Selector::check_gemm, &Selector::act_gemm},
        {"MatMul", &Selector::check_nbits, &Selector::act_nbits},
    });
  }

  bool consider(std::size_t at) {
    std::string why;
    bool known = false;
    for (const Rule& rule : rules()) {
      if (graph_.at(at).op != rule.op) continue;
      std::string refusal;
      const auto group = group_of(at, refusal);
      if (group) refusal = (this->*rule.check)(*group);
      if (refusal.empty()) {
        graph_.blockers.erase(graph_.at(at).origin);
        (this->*rule.action)(*group);
        return true;
      }
      if (!known) why = refusal;
      known = true;
    }
    if (known && graph_.at(at).origin != kNone) graph_.blockers[graph_.at(at).origin] = why;
    return false;
  }

  std::optional<Group> group_of(std::size_t at, std::string& refusal) const {
    Group group{.target = at};
    for (const std::string& input : graph_.at(at).inputs)
      if (const std::size_t from = graph_.producer(input); from != kNone && is_dequantize(graph_.at(from)))
        group.dequantizes.push_back(from);
    if (graph_.edges(at) == 1) {
      const std::size_t next = graph_.only_reader(at);
      const Item& item = graph_.at(next);
      if ((item.op == "Relu" || item.op == "Clip") && graph_.single(next)) group.clip = next;
    }
    const std::size_t last = group.clip == kNone ? at : group.clip;
    for (const std::string& output : graph_.at(last).outputs)
      for (const auto& reader : graph_.readers(output))
        if (is_quantize(graph_.at(reader.item))) group.quantizes.push_back(reader.item);
    if (group.clip != kNone) {
      const Item& clip = graph_.at(group.clip);
      if (group.quantizes.size() != 1)
        refusal = group.dequantizes.empty()
                      ? float_inputs(at)
                      : fmt::format("a float {} reads its result: quantize what is behind the {}", clip.op, clip.op);
      else
        refusal = clip_refusal(graph_, clip, graph_.at(group.quantizes[0]));
      if (!refusal.empty()) return std::nullopt;
    }
    return group;
  }

  std::string float_inputs(std::size_t at) const {
    const Item& item = graph_.at(at);
    for (std::size_t slot = 0; slot < item.inputs.size(); ++slot) {
      const std::string& input = item.inputs[slot];
      const std::size_t from = graph_.producer(input);
      if (input.empty() || (from != kNone && is_dequantize(graph_.at(from)))) continue;
      const bool bias = slot == 2 && (item.is("Conv") || item.is("Gemm"));
      if (bias) return bias_text(input);
      if (graph_.is_constant(input)) return fmt::format("its constant input '{}' is float", shown(input));
      return fmt::format("its input '{}' is float", shown(input));
    }
    return "its inputs are float";
  }

  std::string bias_text(const std::string& bias) const {
    return fmt::format(
        "its bias '{}' is float: write int32 with scale = input scale * weight scale (runtimes since 1.21 do so by "
        "themselves where it is a constant vector)",
        shown(bias));
  }

  static std::string shown(const std::string& value) { return value.substr(0, value.find('\x01')); }

  DType in_type(const Group& group, std::size_t k = 0) const {
    return codes_type(graph_, graph_.at(group.dequantizes[k]));
  }
  DType out_type(const Group& group, std::size_t k = 0) const {
    return codes_type(graph_, graph_.at(group.quantizes[k]));
  }

  // What every group must have. `wanted`: number of inputs that come from DequantizeLinear, all by default.
  std::string check_group(const Group& group, std::optional<std::size_t> wanted = {}, bool float_result = false) const {
    const Item& item = graph_.at(group.target);
    const std::size_t inputs = wanted.value_or(item.present_inputs());
    if (group.dequantizes.size() < inputs) return float_inputs(group.target);
    if (group.dequantizes.size() > inputs) return "an input that must be float is dequantized";
    for (const std::size_t from : group.dequantizes)
      if (!graph_.single(from)) return "its DequantizeLinear is also read elsewhere";
    if (group.quantizes.empty()) return float_result ? "" : "its output is not quantized: no QuantizeLinear behind it";
    if (graph_.makes_output(group.target)) return "its output is also a graph output";
    const auto outputs =
        static_cast<std::size_t>(std::ranges::count_if(item.outputs, [](const std::string& o) { return !o.empty(); }));
    if (graph_.edges(group.target) != group.quantizes.size())
      return "its output is read by a QuantizeLinear and by other nodes: let all readers take the dequantized value";
    if (outputs != group.quantizes.size())
      return outputs == 1 ? "its output is quantized more than once" : "not all of its outputs are quantized";
    return {};
  }

  std::string check_types(const Group& group, bool sixteen) const {
    for (std::size_t k = 0; k < group.dequantizes.size(); ++k)
      if (in_type(group, k) != in_type(group))
        return fmt::format("its inputs are {} and {}", dtype_name(in_type(group)), dtype_name(in_type(group, k)));
    for (std::size_t k = 0; k < group.quantizes.size(); ++k)
      if (out_type(group, k) != in_type(group))
        return fmt::format("its input is {}, its output {}", dtype_name(in_type(group)),
                           dtype_name(out_type(group, k)));
    if (!sixteen && is_16_bit(in_type(group))) return "16-bit activations have no integer kernel";
    if (is_4_bit(in_type(group))) return "4-bit activations have no integer kernel";
    return {};
  }

  std::string check_drop(const Group& group) const {
    const std::string& op = graph_.at(group.target).op;
    return check_movement(group, op != "Resize" && op != "DepthToSpace");
  }

  std::string check_movement(const Group& group, bool sixteen) const {
    if (group.clip != kNone)
      return fmt::format("a {} stands between it and its QuantizeLinear", graph_.at(group.clip).op);
    if (std::string why = check_group(group, 1); !why.empty()) return why;
    if (std::string why = check_types(group, sixteen); !why.empty()) return why;
    std::string why;
    is_pair(graph_, graph_.at(group.quantizes[0]), graph_.at(group.dequantizes[0]), &why);
    return why;
  }

  std::string check_ordered(const Group& group) const {
    if (std::string why = check_movement(group, false); !why.empty()) return why;
    const auto params = scalar_params(graph_, graph_.at(group.quantizes[0]));
    return params && params->scale > 0 ? "" : "its scale is not positive";
  }

  std::string check_maxpool(const Group& group) const {
    if (graph_.opset() < 12) return "MaxPool on 8-bit codes needs opset 12";
    if (graph_.opset() >= 22) return "MaxPool of opset 22 and later stays float in this runtime";
    return check_ordered(group);
  }

  std::string check_split(const Group& group) const {
    if (group.clip != kNone) return "a Relu or Clip stands between it and its QuantizeLinear";
    if (std::string why = check_group(group, 1); !why.empty()) return why;
    for (std::size_t k = 0; k < group.quantizes.size(); ++k) {
      std::string why;
      if (!is_pair(graph_, graph_.at(group.quantizes[k]), graph_.at(group.dequantizes[0]), &why)) return why;
    }
    return {};
  }

  std::string check_argmax(const Group& group) const {
    if (group.clip != kNone || group.dequantizes.size() != 1) return "its input is float";
    const Item& from = graph_.at(group.dequantizes[0]);
    if (!graph_.single(group.dequantizes[0])) return "its DequantizeLinear is also read elsewhere";
    if (bit_width(in_type(group)) != 8) return "only 8-bit codes have an integer ArgMax";
    if (from.input(2).empty()) return "a zero point is left out: write it, even if 0";
    return scalar_params(graph_, from) ? "" : "its scales are not one constant for the tensor";
  }

  std::string check_unary(const Group& group) const {
    if (std::string why = check_group(group, 1); !why.empty()) return why;
    return check_types(group, false);
  }

  std::string check_variadic(const Group& group) const {
    if (std::string why = check_group(group); !why.empty()) return why;
    return check_types(group, false);
  }

  std::string check_where(const Group& group) const {
    if (std::string why = check_group(group, 2); !why.empty()) return why;
    return check_types(group, false);
  }

  // int8 activations where the kernels are for uint8.
  std::string check_int8(const Group& group) const {
    if (in_type(group) != DType::i8) return {};
    if (in_type(group, 1) != DType::i8) return "int8 activations with uint8 weights have no integer kernel";
    if (int8_activations_) return {};
    const std::string codes = graph_.at(group.dequantizes[0]).input(0);
    const std::size_t readers = graph_.readers(codes).size();
    const std::size_t from = graph_.producer(codes);
    if (from == kNone || !is_quantize(graph_.at(from)))
      return "int8 activation that no QuantizeLinear makes: x86 fuses uint8";
    if (graph_.at(from).input(2).empty()) return "int8 activation on x86 with its zero point left out: use uint8";
    if (readers > 1) return fmt::format("int8 activation with {} readers on x86: use uint8", readers);
    return "int8 activation on x86: use uint8";
  }

  std::string check_conv(const Group& group) const {
    if (std::string why = check_group(group); !why.empty()) return why;
    if (std::string why = check_int8(group); !why.empty()) return why;
    if (in_type(group) != out_type(group))
      return fmt::format("its input is {}, its output {}", dtype_name(in_type(group)), dtype_name(out_type(group)));
    if (is_4_bit(in_type(group, 1))) return "4-bit weights have no integer Conv";
    if (group.dequantizes.size() == 3 && in_type(group, 2) != DType::i32)
      return fmt::format("its bias is {}, not int32", dtype_name(in_type(group, 2)));
    if (is_16_bit(in_type(group)) || is_16_bit(in_type(group, 1))) return "16-bit codes have no integer kernel";
    return {};
  }

  std::string check_matmul(const Group& group) const {
    if (group.dequantizes.size() != 2) return float_inputs(group.target);
    if (std::string why = check_int8(group); !why.empty()) return why;
    for (const std::size_t k : {0UZ, 1UZ}) {
      if (is_16_bit(in_type(group, k))) return "16-bit codes have no integer kernel";
      if (is_4_bit(in_type(group, k))) return "4-bit codes on both sides have no integer kernel";
    }
    if (group.quantizes.empty()) return {};
    if (std::string why = check_group(group); !why.empty()) return why;
    if (in_type(group) == out_type(group)) return {};
    return fmt::format("its input is {}, its output {}", dtype_name(in_type(group)), dtype_name(out_type(group)));
  }

  std::string check_gemm(const Group& group) const {
    if (std::string why = check_group(group, {}, true); !why.empty()) return why;
    if (in_type(group) == DType::i8 && in_type(group, 1) != DType::i8)
      return "int8 activations with uint8 weights have no integer kernel";
    if (!group.quantizes.empty() && in_type(group) != out_type(group))
      return fmt::format("its input is {}, its output {}", dtype_name(in_type(group)), dtype_name(out_type(group)));
    for (const std::size_t k : {0UZ, 1UZ}) {
      if (is_16_bit(in_type(group, k))) return "16-bit codes have no integer kernel";
      if (is_4_bit(in_type(group, k))) return "4-bit codes have no integer Gemm";
    }
    if (group.dequantizes.size() < 3) return {};
    const Item& item = graph_.at(group.target);
    if (item.source && item.source.is("Gemm") && item.source.attr_float("beta", 1) != 1) return "beta is not 1";
    if (in_type(group, 2) != DType::i32) return fmt::format("its bias is {}, not int32", dtype_name(in_type(group, 2)));
    return {};
  }

  // A constant weight of 4 bits in blocks along its rows.
  std::string check_nbits(const Group& group) const {
    const Item& item = graph_.at(group.target);
    if (group.clip != kNone || !group.quantizes.empty()) return "its output is quantized";
    if (group.dequantizes.size() != 1 || graph_.producer(item.input(1)) != group.dequantizes[0])
      return float_inputs(group.target);
    const Item& from = graph_.at(group.dequantizes[0]);
    const auto weight = graph_.constant_type(from.input(0)), scale = graph_.constant_type(from.input(1));
    if (!weight || !scale || (!from.input(2).empty() && !graph_.is_constant(from.input(2))))
      return "its weight codes and scales are not constants";
    if (!is_4_bit(weight->first))
      return fmt::format(
          "{} weights without quantized activations are dequantized to float "
          "at every run: quantize the activations too, or use 4 bits in blocks",
          dtype_name(weight->first));
    if (scale->first != DType::f32 && scale->first != DType::f16) return "its scales are neither float nor half";
    const std::int64_t block = from.source ? from.source.attr_int("block_size", 0) : 0;
    if (!from.source || from.source.attr_int("axis", 1) != 0) return "its blocks do not run along axis 0";
    if (block < 16 || (block & (block - 1)) != 0)
      return fmt::format("block_size {} is not a power of two of at least 16", block);
    if (!weight->second || weight->second->size() != 2 || !scale->second || scale->second->size() != 2)
      return "its weight is not a matrix";
    return {};
  }

  void take(const Group& group, std::string_view op, std::string_view domain, std::vector<std::string> inputs) {
    const std::string kernel = domain.empty() ? std::string(op) : fmt::format("{}.{}", domain, op);
    const Item target = graph_.at(group.target);
    std::vector<std::string> outputs = target.outputs;
    for (const std::size_t q : group.quantizes) {
      if (group.quantizes.size() == 1) outputs[0] = graph_.at(q).outputs[0];
      graph_.remove(q, "part of " + kernel);
    }
    if (group.clip != kNone) graph_.remove(group.clip, "absorbed by " + kernel);
    for (const std::size_t dq : group.dequantizes) graph_.remove(dq, "part of " + kernel);
    graph_.remove(group.target, "");
    graph_.gone.erase(target.origin);
    graph_.add({.origin = target.origin,
                .source = target.source,
                .op = std::string(op),
                .domain = std::string(domain),
                .inputs = std::move(inputs),
                .outputs = std::move(outputs)});
  }

  void append_params(std::vector<std::string>& inputs, std::size_t item, bool data) const {
    const Item& from = graph_.at(item);
    if (data) inputs.push_back(from.input(0));
    inputs.push_back(from.input(1));
    inputs.push_back(from.input(2));
  }

  void act_drop(const Group& group) {
    const Item target = graph_.at(group.target);
    std::vector<std::string> inputs = target.inputs;
    inputs[0] = graph_.at(group.dequantizes[0]).input(0);
    take(group, target.op, "", std::move(inputs));
  }

  void act_drop_dequantize(const Group& group) {
    const std::size_t dq = group.dequantizes[0];
    graph_.set_input(group.target, 0, graph_.at(dq).input(0));
    graph_.remove(dq, "part of ArgMax on codes");
  }

  void act_split(const Group& group) {
    const Item target = graph_.at(group.target);
    const std::size_t dq = group.dequantizes[0];
    const std::string codes = graph_.at(dq).input(0);
    graph_.remove(dq, "part of Split on codes");
    graph_.set_input(group.target, 0, codes);
    for (std::size_t k = 0; k < target.outputs.size(); ++k) {
      const std::size_t q = graph_.reader_of(target.outputs[k]);
      const std::string out = graph_.at(q).outputs[0];
      graph_.remove(q, "part of Split on codes");
      graph_.set_output(group.target, k, out);
    }
  }

  // QLinear ops of com.microsoft. Their inputs matter to nobody behind.
  void act_unary(const Group& group) {
    std::vector<std::string> inputs;
    if (graph_.at(group.target).op == "Where") inputs.push_back(graph_.at(group.target).input(0));
    for (const std::size_t dq : group.dequantizes) append_params(inputs, dq, true);
    append_params(inputs, group.quantizes[0], false);
    take(group, "QLinear" + graph_.at(group.target).op, "com.microsoft", std::move(inputs));
  }

  void act_conv(const Group& group) {
    std::vector<std::string> inputs;
    append_params(inputs, group.dequantizes[0], true);
    append_params(inputs, group.dequantizes[1], true);
    append_params(inputs, group.quantizes[0], false);
    if (group.dequantizes.size() == 3) inputs.push_back(graph_.at(group.dequantizes[2]).input(0));
    take(group, "QLinearConv", "", std::move(inputs));
  }

  void act_matmul(const Group& group) {
    std::vector<std::string> inputs;
    append_params(inputs, group.dequantizes[0], true);
    append_params(inputs, group.dequantizes[1], true);
    if (group.quantizes.empty()) return take(group, "MatMulIntegerToFloat", "com.microsoft", std::move(inputs));
    append_params(inputs, group.quantizes[0], false);
    take(group, "QLinearMatMul", "", std::move(inputs));
  }

  void act_gemm(const Group& group) {
    std::vector<std::string> inputs;
    append_params(inputs, group.dequantizes[0], true);
    append_params(inputs, group.dequantizes[1], true);
    inputs.push_back(group.dequantizes.size() == 3 ? graph_.at(group.dequantizes[2]).input(0) : "");
    if (!group.quantizes.empty()) append_params(inputs, group.quantizes[0], false);
    take(group, "QGemm", "com.microsoft", std::move(inputs));
  }

  void act_nbits(const Group& group) {
    const Item& from = graph_.at(group.dequantizes[0]);
    take(group, "MatMulNBits", "com.microsoft",
         {graph_.at(group.target).input(0), from.input(0), from.input(1), from.input(2)});
  }

  RuntimeGraph& graph_;
  bool int8_activations_;
};

}  // namespace

bool select_groups(RuntimeGraph& graph, bool int8_activations) { return Selector(graph, int8_activations).run(); }

}  // namespace onnxpress::runtime
