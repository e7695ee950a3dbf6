// Writes QuantizeLinear/DequantizeLinear pairs into a scope, in the form runtimes fuse: constant scalar scale and zero
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

// How a value becomes codes.
struct CodeParams {
  AffineParams affine;
  DType dtype = DType::u8;
};

// A quantized weight of some scope: what its DequantizeLinear reads.
struct StoredWeight {
  std::string codes = {}, scale = {}, zero_point = {};
  std::optional<std::int64_t> axis = {};
};

class QdqWriter {
 public:
  QdqWriter(Graph& graph, Rewriter& rewriter) : graph_(graph), rewriter_(rewriter) {}

  struct Place {
    bool made_integer = false;  // an integer node makes the value, so every reader takes what is dequantized
    bool half = false;          // the model knows it as float16; integer nodes work on float
    bool outside = true;        // somebody but integer nodes reads it
    bool dequantize = true;     // somebody reads it by one scale
  };
  // value -> QuantizeLinear -> DequantizeLinear, right behind its producer (at the head of the scope when it comes from
  // outside). `root` names the parameters: values with one root share them. Unless an integer node makes the value,
  // only the slots later given to read() take the dequantized one. A graph output keeps its name.
  void quantize(const std::string& value, const std::string& root, const CodeParams& params, const Place& place);
  // Lets input `slot` of the node read the dequantized form of its value.
  void read(const Node& node, std::size_t slot);

  // Lets input `slot` of a node that is to stay float read its codes through a DequantizeLinear with a scale for each
  // of the `channels` along axis 1, all the same: ONNX Runtime makes no integer node of that.
  void read_per_channel(const Node& node, std::size_t slot, std::int64_t channels, const CodeParams& params);

  // Initializers for the weight named `name`, in this scope; `codes` when its codes are a value already.
  StoredWeight store(const std::string& name, QuantizedWeight weight, std::optional<std::int64_t> axis,
                     std::string codes = {});
  // A DequantizeLinear before `reader`, one for all its readers in this scope; `reader` must be the first of them.
  std::string weight(const Node& reader, const StoredWeight& stored);
  // An int32 bias with one scale per channel (or one), zero point 0.
  std::string bias(const Node& reader, const std::string& name, Tensor codes, const std::vector<float>& scales);
  // The result of an integer node that gives floats, for readers that know it as float16.
  void to_half(const Node& node);
  // What input `slot` of the node reads now.
  std::string current(const Node& node, std::size_t slot) const;
  // Codes and back in front of one input of the node alone.
  void read_privately(const Node& node, std::size_t slot, const CodeParams& params);
  // A constant operand as codes.
  std::string constant(const Node& reader, const std::string& name, Tensor codes, const CodeParams& params);

 private:
  struct Names {
    std::string scale, zero_point;
  };
  const Names& params_of(const std::string& root, const CodeParams& params);
  std::string add_constant(const std::string& base, Tensor value);
  // 16-bit codes belong to the standard operators from opset 21 on, before that to those of ONNX Runtime.
  std::string domain_of(DType dtype) const;

  Graph& graph_;
  Rewriter& rewriter_;
  std::map<std::string, Names> params_;             // by root
  std::map<std::string, std::string> codes_;        // value -> its codes
  std::map<std::string, std::string> dequantized_;  // value -> what integer nodes read
  std::map<std::string, std::string> outside_;      // value -> what everybody else reads, where that changed
  std::map<std::string, std::string> weights_;      // codes -> what its readers read
};

}  // namespace onnxpress
