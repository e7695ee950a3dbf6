#include "report/stats.h"

#include <algorithm>
#include <unordered_set>

#include "base/parallel.h"
#include "base/text.h"
#include "ir/macs.h"
#include "report/weights.h"

namespace onnxpress {
namespace {

std::string full_op(const Node& node) {
  return node.domain().empty() ? std::string(node.op()) : fmt::format("{}.{}", node.domain(), node.op());
}

// Elements that are not zero, of every parameter tensor; 0 for the others.
Result<std::vector<std::uint64_t>> nonzeros_of(const WeightMap& map, unsigned jobs) {
  std::vector<std::uint64_t> counts(map.tensors.size(), 0);
  OP_TRY(execute_and_commit<std::uint64_t>(
      map.tensors.size(), jobs,
      [&](std::size_t i) -> Result<std::uint64_t> {
        const WeightTensor& tensor = map.tensors[i];
        if (!tensor.parameter) return 0;
        auto count = tensor.nonzeros();
        if (!count) return rethrow(std::move(count).error(), "tensor " + escape_control(tensor.name));
        return count;
      },
      [&](std::size_t i, std::uint64_t count) -> Status {
        counts[i] = count;
        return {};
      },
      "reading weights"));
  return counts;
}

void add_weights(const WeightMap& map, const std::vector<std::uint64_t>& nonzeros, ModelStats& stats,
                 std::vector<LayerStats>& layers) {
  for (std::size_t i = 0; i < map.tensors.size(); ++i) {
    const WeightTensor& tensor = map.tensors[i];
    const std::uint64_t elements = tensor.parameter ? tensor.elements() : 0;
    WeightBytes& weights = stats.weights[std::string(dtype_name(tensor.dtype))];
    ++weights.tensors;
    weights.elements += element_count(tensor.dims).value_or(0);
    weights.bytes += tensor.bytes;
    stats.weight_bytes += tensor.bytes;
    stats.parameters += elements;
    stats.nonzeros += nonzeros[i];
    if (!tensor.layer) continue;
    LayerStats& layer = layers[*tensor.layer];
    layer.parameters += elements;
    layer.nonzeros += nonzeros[i];
    layer.bytes += tensor.bytes;
  }
}

void add_operators(const Model& model, ModelStats& stats) {
  bool nested = false;
  for (const Graph* graph : model.graphs()) {
    nested = nested || graph->kind() == Graph::Kind::body;
    for (const Node& node : graph->nodes()) {
      ++stats.nodes;
      ++stats.ops[full_op(node)];
      stats.opsets.emplace(std::string(node.domain()), model.opset(node.domain()));
    }
  }
  stats.opsets.emplace("", model.opset());
  if (nested) stats.notes.emplace_back("each body of If, Loop and Scan counts once");
}

void add_macs(const WeightMap& map, ModelStats& stats, std::vector<LayerStats>& layers) {
  for (std::size_t i = 0; i < map.layers.size(); ++i) {
    const Node& node = map.layers[i];
    layers[i].node = node.label();
    layers[i].op = full_op(node);
    const auto macs = node_macs(node, &stats.free_dims);
    if (!macs) continue;
    layers[i].macs = *macs;
    if (*macs) {
      stats.macs += **macs;
    } else {
      ++stats.macs_unknown[layers[i].op];
    }
  }
}

}  // namespace

Result<ModelStats> model_stats(const Model& model, const StatsOptions& options) {
  model.index();
  ModelStats stats;
  stats.ir_version = model.ir_version();
  const Graph& main = model.main();
  for (const std::string& input : main.inputs())
    if (!main.initializer(input)) stats.inputs.push_back({input, main.type(input)});
  for (const std::string& output : main.outputs()) stats.outputs.push_back({output, main.type(output)});
  const WeightMap map = collect_weights(model);
  stats.notes = map.notes;
  add_operators(model, stats);
  std::vector<LayerStats> layers(map.layers.size());
  add_macs(map, stats, layers);
  OP_LET(const auto nonzeros, nonzeros_of(map, options.jobs));
  add_weights(map, nonzeros, stats, layers);
  for (LayerStats& layer : layers)
    if (layer.parameters > 0 || layer.macs) stats.layers.push_back(std::move(layer));
  return stats;
}

}  // namespace onnxpress
