// Writes QuantizeLinear/DequantizeLinear pairs into a graph, in the form runtimes fuse: constant scalar scale and zero
// point on both, the same pair of initializers for every value that shares parameters.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ir/rewriter.h"
#include "num/quantize.h"
#include "quant/weight.h"

namespace onnxpress {

class QdqWriter {
 public:
  QdqWriter(Graph& graph, Rewriter& rewriter) : graph_(graph), rewriter_(rewriter) {}

  // value -> QuantizeLinear (uint8) -> DequantizeLinear, right behind its producer. `root` names the parameters:
  // values with one root share them. `all_readers`: every reader takes the dequantized value (needed where the runtime
  // fuses the producer); else only the slots later given to read(). A graph output keeps its name: it becomes the
  // dequantized value.
  void quantize(const std::string& value, const std::string& root, AffineParams params, bool all_readers);
  // Lets input `slot` of the node read the dequantized form of its value.
  void read(const Node& node, std::size_t slot);

  // Initializers and a DequantizeLinear before `reader`; returns its output.
  std::string weight(const Node& reader, const std::string& name, QuantizedWeight weight,
                     std::optional<std::int64_t> axis);
  // An int32 bias with one scale per channel (or one), zero point 0.
  std::string bias(const Node& reader, const std::string& name, Tensor codes, const std::vector<float>& scales);

 private:
  struct Names {
    std::string scale, zero_point;
  };
  const Names& params_of(const std::string& root, AffineParams params);
  std::string add_constant(const std::string& base, Tensor value);

  Graph& graph_;
  Rewriter& rewriter_;
  std::map<std::string, Names> params_;             // by root
  std::map<std::string, std::string> dequantized_;  // value -> what integer nodes read
};

}  // namespace onnxpress
