// Weights and biases of the integer nodes of all scopes: planned, quantized in parallel, written once each.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/rewriters.h"
#include "quant/qdq.h"
#include "quant/static.h"
#include "quant/static_plan.h"

namespace onnxpress {

// One QdqWriter per scope.
class QdqWriters {
 public:
  explicit QdqWriters(Rewriters& rewriters) : rewriters_(rewriters) {}
  QdqWriter& of(Graph& graph) { return by_graph_.try_emplace(&graph, graph, rewriters_.of(graph)).first->second; }

 private:
  Rewriters& rewriters_;
  std::map<const Graph*, QdqWriter> by_graph_;
};

class StaticWeights {
 public:
  StaticWeights(Model& model, const StaticSettings& settings)
      : model_(model), settings_(settings), per_channel_(settings.per_channel && model.opset() >= 13) {}

  // A Conv, Gemm or MatMul to give integer weights; `input_scale` of its data.
  Status add(const StaticNode& unit, float input_scale, WeightFormat format);
  // A node whose 16-bit activations the runtime computes in float: 8-bit weights, float bias.
  Status add_wide(const Node& node);
  // A node that stays float because integers do not pay: its weight is stored as codes and folded back to float when
  // the model is loaded. False when the weight is small, or others read it.
  bool add_stored(const Node& node);
  bool empty() const { return jobs_.empty(); }
  // Quantizes and writes everything added; every node is journaled as done.
  Status write(QdqWriters& writers, Rewriters& rewriters, PassContext& context) const;

 private:
  struct Kernel {
    Node node;
    bool quantize_output = false, wide = false;
    std::size_t job = 0;  // of its weight
    float input_scale = 1;
    std::vector<float> bias = {};  // one per output channel, to become int32; empty when there is none
  };
  struct Written {
    StoredWeight stored;
    std::vector<float> scales;
    float sqnr_db = 0;
    DType dtype = DType::i8;
  };
  Result<std::size_t> job_of(const Node& node, WeightFormat format);
  void write_bias(const Kernel& kernel, const Written& weight, QdqWriters& writers, Rewriters& rewriters) const;
  void drop_float_constants(Rewriters& rewriters) const;
  bool quantizes_bias() const { return quantizes_results(settings_.target); }

  Model& model_;
  const StaticSettings& settings_;
  bool per_channel_;
  std::vector<Kernel> kernels_;
  std::vector<WeightJob> jobs_;
  std::map<std::size_t, Node> stored_;  // job -> the node that reads its weight
  std::map<std::tuple<const Graph*, std::string, std::int64_t, float, WeightFormat>, std::size_t> known_;
};

}  // namespace onnxpress
