#include "report/weights.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>

#include "ir/sparse_initializer.h"
#include "num/sparse_codec.h"

namespace onnxpress {
namespace {

using Key = std::pair<const Graph*, std::string>;
using Keys = std::map<Key, std::size_t>;

// Input slots of a quantization op that hold scales and zero points, and the quantized constant it reads with the
// slot of its zero point (-1 = none). Source: the ONNX and com.microsoft operator specifications.
enum class Axis { attribute, first, last, gemm };
struct QuantSlots {
  std::string_view op;
  bool contributed;
  std::array<int, 6> params;  // -1 = unused
  int data, zero_point;
  Axis axis;
};
constexpr std::array kQuantSlots = {
    QuantSlots{"QuantizeLinear", false, {1, 2, -1, -1, -1, -1}, -1, -1, Axis::attribute},
    QuantSlots{"DequantizeLinear", false, {1, 2, -1, -1, -1, -1}, 0, 2, Axis::attribute},
    QuantSlots{"QLinearConv", false, {1, 2, 4, 5, 6, 7}, 3, 5, Axis::first},
    QuantSlots{"QLinearMatMul", false, {1, 2, 4, 5, 6, 7}, 3, 5, Axis::last},
    QuantSlots{"MatMulInteger", false, {2, 3, -1, -1, -1, -1}, 1, 3, Axis::last},
    QuantSlots{"ConvInteger", false, {2, 3, -1, -1, -1, -1}, 1, 3, Axis::first},
    QuantSlots{"QuantizeLinear", true, {1, 2, -1, -1, -1, -1}, -1, -1, Axis::attribute},
    QuantSlots{"DequantizeLinear", true, {1, 2, -1, -1, -1, -1}, 0, 2, Axis::attribute},
    QuantSlots{"QLinearConv", true, {1, 2, 4, 5, 6, 7}, 3, 5, Axis::first},
    QuantSlots{"QLinearAdd", true, {1, 2, 4, 5, 6, 7}, 3, 5, Axis::first},
    QuantSlots{"QLinearMul", true, {1, 2, 4, 5, 6, 7}, 3, 5, Axis::first},
    QuantSlots{"QLinearAveragePool", true, {1, 2, 3, 4, -1, -1}, -1, -1, Axis::first},
    QuantSlots{"QLinearGlobalAveragePool", true, {1, 2, 3, 4, -1, -1}, -1, -1, Axis::first},
    QuantSlots{"QLinearSigmoid", true, {1, 2, 3, 4, -1, -1}, -1, -1, Axis::first},
    QuantSlots{"QLinearLeakyRelu", true, {1, 2, 3, 4, -1, -1}, -1, -1, Axis::first},
    QuantSlots{"QLinearSoftmax", true, {1, 2, 3, 4, -1, -1}, -1, -1, Axis::first},
    QuantSlots{"QLinearWhere", true, {2, 3, 5, 6, 7, 8}, -1, -1, Axis::first},
    QuantSlots{"QGemm", true, {1, 2, 4, 5, 7, 8}, 3, 5, Axis::gemm},
    QuantSlots{"MatMulIntegerToFloat", true, {2, 3, 4, 5, -1, -1}, 1, 5, Axis::last},
    QuantSlots{"DynamicQuantizeMatMul", true, {2, 3, -1, -1, -1, -1}, 1, 3, Axis::last},
    QuantSlots{"DynamicQuantizeLSTM", true, {8, 9, 10, 11, -1, -1}, 1, 9, Axis::first},
    QuantSlots{"QAttention", true, {3, 4, 6, 7, -1, -1}, 1, 7, Axis::last},
    QuantSlots{"MatMulNBits", true, {2, 3, -1, -1, -1, -1}, -1, -1, Axis::first},
    QuantSlots{"GatherBlockQuantized", true, {2, 3, -1, -1, -1, -1}, 0, 3, Axis::last},
};

// Between a constant and the node that computes with it.
constexpr std::array kThrough = {"DequantizeLinear", "QuantizeLinear", "Cast",    "Transpose",
                                 "Reshape",          "Identity",       "Squeeze", "Unsqueeze"};
constexpr int kMostThrough = 8;

class Collector {
 public:
  explicit Collector(const Model& model) : model_(model) {}

  WeightMap run() {
    for (const Graph* graph : model_.graphs()) add_stored(*graph);
    for (const Graph* graph : model_.graphs()) add_tensors(*graph);
    for (const Graph* graph : model_.graphs()) {
      for (const Node& node : graph->nodes()) {
        mark_quantization(node);
        if (node.is("Constant") || decoders_.contains(node.proto()) || is_weight_plumbing(node)) continue;
        const std::size_t layer = map_.layers.size();
        map_.layers.push_back(node);
        for (std::size_t slot = 0; slot < node.input_count(); ++slot) claim(*graph, node.input(slot), layer, 0);
      }
    }
    return std::move(map_);
  }

 private:
  WeightTensor& add(const Graph& graph, std::string name, DType dtype, Dims dims) {
    WeightTensor tensor{.graph = &graph, .name = name, .dtype = dtype, .dims = std::move(dims)};
    tensor.bytes = byte_count(dtype, tensor.dims).value_or(0);
    tensor.parameter = dtype != DType::i64 && dtype != DType::u64 && dtype != DType::boolean && dtype != DType::string;
    keys_.emplace(Key{&graph, std::move(name)}, map_.tensors.size());
    return map_.tensors.emplace_back(std::move(tensor));
  }

  // Constants that only the nodes of a stored weight read are its pieces. A table that others read too is their own.
  std::uint64_t add_pieces(const StoredSparse& weight) {
    const std::set<const onnx::NodeProto*> inside = protos(weight.nodes);
    std::uint64_t bytes = 0;
    for (const std::string& name : std::set(weight.constants.begin(), weight.constants.end())) {
      const Graph& scope = *weight.graph->scope_of(name);
      if (!std::ranges::all_of(scope.uses(name),
                               [&](const Use& use) { return use.node && inside.contains(use.node.proto()); }))
        continue;
      const auto type = *weight.graph->constant_type(name);
      bytes += byte_count(type.first, type.second).value_or(0);
      pieces_.emplace(&scope, name);
    }
    decoders_.insert(inside.begin(), inside.end());
    return bytes;
  }

  static std::set<const onnx::NodeProto*> protos(const std::vector<Node>& nodes) {
    std::set<const onnx::NodeProto*> found;
    for (const Node& node : nodes) found.insert(node.proto());
    return found;
  }

  void add_stored(const Graph& graph) {
    for (StoredSparse& weight : stored_sparse(graph)) {
      const std::uint64_t bytes = add_pieces(weight);
      WeightTensor& tensor = add(graph, weight.value, weight.dtype, weight.dims);
      tensor.bytes = bytes;
      tensor.stored = std::move(weight);
    }
    for (const SparseInitializer& sparse : sparse_initializers(graph)) {
      WeightTensor& tensor = add(graph, sparse.name, sparse.dtype, sparse.dims);
      tensor.bytes = sparse.bytes;
      tensor.sparse = true;
    }
  }

  void add_tensors(const Graph& graph) {
    for (const Initializer& initializer : graph.initializers())
      if (!pieces_.contains({&graph, std::string(initializer.name())}))
        add(graph, std::string(initializer.name()), initializer.dtype(), initializer.dims());
    std::size_t others = 0;
    for (const Node& node : graph.nodes()) {
      if (!node.is("Constant") || pieces_.contains({&graph, std::string(node.output(0))})) continue;
      if (auto type = graph.constant_type(node.output(0))) {
        add(graph, std::string(node.output(0)), type->first, std::move(type->second));
      } else {
        ++others;
      }
    }
    if (others > 0) map_.notes.push_back(fmt::format("{} sparse tensors are not counted", others));
  }

  WeightTensor* find(const Graph& graph, std::string_view value) {
    const Graph* scope = value.empty() ? nullptr : graph.scope_of(value);
    const auto at = keys_.find({scope, std::string(value)});
    return at == keys_.end() ? nullptr : &map_.tensors[at->second];
  }

  // The tensor behind `value`, through nodes that only change its form.
  WeightTensor* behind(const Graph& graph, std::string_view value, int depth) {
    if (WeightTensor* tensor = find(graph, value)) return tensor;
    const Graph* scope = value.empty() || depth == kMostThrough ? nullptr : graph.scope_of(value);
    const Node producer = scope != nullptr ? scope->producer(value) : Node();
    if (!producer || std::ranges::find(kThrough, producer.op()) == kThrough.end()) return nullptr;
    return behind(*scope, producer.input(0), depth + 1);
  }

  bool is_weight_plumbing(const Node& node) {
    return std::ranges::find(kThrough, node.op()) != kThrough.end() &&
           behind(node.graph(), node.input(0), 0) != nullptr;
  }

  void claim(const Graph& graph, std::string_view value, std::size_t layer, int depth) {
    if (WeightTensor* tensor = find(graph, value)) {
      if (!tensor->layer) tensor->layer = layer;
      return;
    }
    if (behind(graph, value, depth) == nullptr) return;
    const Graph* scope = graph.scope_of(value);
    const Node producer = scope->producer(value);
    for (std::size_t slot = 0; slot < producer.input_count(); ++slot)
      claim(*scope, producer.input(slot), layer, depth + 1);
  }

  void not_a_parameter(const Graph& graph, std::string_view value) {
    if (WeightTensor* tensor = find(graph, value)) tensor->parameter = false;
  }

  void mark_quantization(const Node& node) {
    const Graph& graph = node.graph();
    // DynamicQuantizeLinear's scale times a constant: that constant is the weight's scale.
    if (node.is("Mul"))
      for (const std::size_t slot : {std::size_t{0}, std::size_t{1}}) {
        const Node producer = graph.producer(node.input(1 - slot));
        if (producer && producer.is("DynamicQuantizeLinear") && producer.output(1) == node.input(1 - slot))
          not_a_parameter(graph, node.input(slot));
      }
    if (node.op() == "QLinearConcat")  // output scale and zero point, then (tensor, scale, zero point) each
      for (std::size_t slot = 0; slot < node.input_count(); ++slot)
        if (slot % 3 != 2) not_a_parameter(graph, node.input(slot));
    const auto slots = std::ranges::find_if(kQuantSlots, [&](const QuantSlots& each) {
      return each.op == node.op() && node.domain() == (each.contributed ? "com.microsoft" : "");
    });
    if (slots == kQuantSlots.end()) return;
    for (const int slot : slots->params)
      if (slot >= 0) not_a_parameter(graph, node.input(static_cast<std::size_t>(slot)));
    if (node.op() == "MatMulNBits") {
      const std::int64_t n = node.attr_int("N", 0), k = node.attr_int("K", 0);
      const Dims dense = {n, k};
      if (WeightTensor* tensor = find(graph, node.input(1))) tensor->packed_elements = element_count(dense);
    }
    if (slots->data >= 0) set_zero_point(node, *slots);
  }

  void set_zero_point(const Node& node, const QuantSlots& slots) {
    WeightTensor* tensor = behind(node.graph(), node.input(static_cast<std::size_t>(slots.data)), 0);
    if (tensor == nullptr) return;
    tensor->zero_point = node.input(static_cast<std::size_t>(slots.zero_point));
    const auto rank = static_cast<std::int64_t>(tensor->dims.size());
    std::int64_t axis = 0;
    if (slots.axis == Axis::attribute) axis = node.attr_int("axis", 1);
    if (slots.axis == Axis::last) axis = rank - 1;
    if (slots.axis == Axis::gemm) axis = node.attr_int("transB", 0) != 0 ? 0 : 1;
    if (axis < 0) axis += rank;
    tensor->zero_point_axis = static_cast<std::size_t>(std::max<std::int64_t>(0, axis));
  }

  const Model& model_;
  WeightMap map_;
  Keys keys_;
  std::set<Key> pieces_;  // constants of stored weights
  std::set<const onnx::NodeProto*> decoders_;
};

// Of the elements of a stored weight that are not stored.
std::uint64_t common_nonzeros(const StoredSparse& weight, std::uint64_t stored, const ZeroPoints& zeros) {
  const std::uint64_t rest = element_count(weight.dims).value_or(0) - stored;
  return count_nonzeros(weight.fill.view(), zeros) > 0 ? rest : 0;
}

Result<std::uint64_t> stored_nonzeros(const StoredSparse& weight, const ZeroPoints& zeros) {
  OP_LET(const Tensor values, stored_values(weight));
  const bool per_axis = zeros.values.size() > 1 && zeros.axis < weight.dims.size() &&
                        std::cmp_equal(weight.dims[zeros.axis], zeros.values.size());
  if (!per_axis) {
    const ZeroPoints none;  // a list that does not fit is ignored
    const ZeroPoints& one = zeros.values.size() > 1 ? none : zeros;
    return count_nonzeros(values.view(), one) + common_nonzeros(weight, values.size(), one);
  }
  OP_LET(const auto positions, stored_positions(weight));
  std::uint64_t inner = 1, count = 0;
  for (std::size_t axis = zeros.axis + 1; axis < weight.dims.size(); ++axis)
    inner *= static_cast<std::uint64_t>(weight.dims[axis]);
  std::vector<std::vector<std::uint32_t>> of_channel(zeros.values.size());
  for (std::uint32_t i = 0; i < positions.size(); ++i)
    of_channel[positions[i] / inner % zeros.values.size()].push_back(i);
  const std::uint64_t channel_size = element_count(weight.dims).value_or(0) / zeros.values.size();
  ZeroPoints zero{std::vector<std::int64_t>(1), 0};
  for (std::size_t channel = 0; channel < of_channel.size(); ++channel) {
    zero.values[0] = zeros.values[channel];
    count += count_nonzeros(take(values.view(), of_channel[channel]).view(), zero);
    if (count_nonzeros(weight.fill.view(), zero) > 0) count += channel_size - of_channel[channel].size();
  }
  return count;
}

}  // namespace

Result<std::uint64_t> WeightTensor::nonzeros() const {
  if (packed_elements) return *packed_elements;
  if (sparse) {
    OP_LET(const Tensor values, sparse_values(*graph, name));
    return count_nonzeros(values.view());
  }
  OP_LET(const ZeroPoints zeros, read_zero_points(*this));
  if (stored) return stored_nonzeros(*stored, zeros);
  if (const Initializer initializer = graph->initializer(name)) {
    OP_LET(const Tensor value, initializer.read());
    return count_nonzeros(value.view(), zeros);
  }
  OP_LET(const auto value, graph->constant(name));
  if (!value) return fail(Code::internal, "{} is not constant", name);
  return count_nonzeros(value->view(), zeros);
}

WeightMap collect_weights(const Model& model) { return Collector(model).run(); }

Result<ZeroPoints> read_zero_points(const WeightTensor& tensor) {
  if (tensor.zero_point.empty()) return ZeroPoints();
  const Graph* scope = tensor.graph->scope_of(tensor.zero_point);
  if (scope == nullptr) return ZeroPoints();
  const auto type = scope->constant_type(tensor.zero_point);
  if (!type || !is_integer(type->first)) return ZeroPoints();
  OP_LET(const auto value, scope->constant(tensor.zero_point));
  if (!value) return ZeroPoints();
  OP_LET(auto values, to_int64s(value->view()));
  return ZeroPoints{std::move(values), tensor.zero_point_axis};
}

}  // namespace onnxpress
