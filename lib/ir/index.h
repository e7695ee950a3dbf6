// The lookup tables behind Graph and Model: a cache over the proto, rebuilt after each commit (12 ms per 40,000 nodes).
#pragma once

#include <onnx/onnx_pb.h>

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

struct Graph::Index {
  std::vector<Node> nodes;
  std::unordered_map<std::string_view, Node> producers;
  std::unordered_map<std::string_view, std::vector<Use>> uses;
  std::unordered_map<std::string_view, onnx::TensorProto*> initializers;
  std::unordered_set<std::string_view> sparse, inputs, outputs;
  std::unordered_map<std::string, ValueType> types;
};

struct Model::Cache {
  // Keyed by GraphProto or FunctionProto, so that a Graph keeps its address while its proto lives.
  std::unordered_map<const void*, std::unique_ptr<Graph>> by_proto;
  std::vector<Graph*> order;
  bool indexed = false;
  bool typed = false;
  std::unordered_set<std::string> value_names, node_names;  // for fresh names; empty until asked for
};

std::string_view plain_domain(std::string_view domain);  // "" for "ai.onnx"

}  // namespace onnxpress
