// Visits every TensorProto of a model that may hold a stored payload, in file order: initializers, sparse initializers,
// tensor attributes, bodies, functions. For lib/ir, lib/io and lib/engine only (it names protobuf types).
#pragma once

#include <onnx/onnx_pb.h>

namespace onnxpress {

enum class TensorPlace { initializer, body_initializer, sparse, attribute };

template <class Fn>
void for_each_tensor(onnx::GraphProto& graph, bool is_main, Fn&& fn);

template <class Fn>
void for_each_tensor(onnx::SparseTensorProto& sparse, Fn&& fn) {
  if (sparse.has_values()) fn(*sparse.mutable_values(), TensorPlace::sparse);
  if (sparse.has_indices()) fn(*sparse.mutable_indices(), TensorPlace::sparse);
}

template <class Fn>
void for_each_tensor(onnx::AttributeProto& attribute, Fn&& fn) {
  if (attribute.has_t()) fn(*attribute.mutable_t(), TensorPlace::attribute);
  for (auto& tensor : *attribute.mutable_tensors()) fn(tensor, TensorPlace::attribute);
  if (attribute.has_sparse_tensor()) for_each_tensor(*attribute.mutable_sparse_tensor(), fn);
  for (auto& sparse : *attribute.mutable_sparse_tensors()) for_each_tensor(sparse, fn);
  if (attribute.has_g()) for_each_tensor(*attribute.mutable_g(), false, fn);
  for (auto& graph : *attribute.mutable_graphs()) for_each_tensor(graph, false, fn);
}

template <class Fn>
void for_each_tensor(onnx::GraphProto& graph, bool is_main, Fn&& fn) {
  for (auto& node : *graph.mutable_node())
    for (auto& attribute : *node.mutable_attribute()) for_each_tensor(attribute, fn);
  for (auto& tensor : *graph.mutable_initializer())
    fn(tensor, is_main ? TensorPlace::initializer : TensorPlace::body_initializer);
  for (auto& sparse : *graph.mutable_sparse_initializer()) for_each_tensor(sparse, fn);
}

template <class Fn>
void for_each_tensor(onnx::ModelProto& model, Fn&& fn) {
  if (model.has_graph()) for_each_tensor(*model.mutable_graph(), true, fn);
  for (auto& function : *model.mutable_functions()) {
    for (auto& attribute : *function.mutable_attribute_proto()) for_each_tensor(attribute, fn);
    for (auto& node : *function.mutable_node())
      for (auto& attribute : *node.mutable_attribute()) for_each_tensor(attribute, fn);
  }
}

}  // namespace onnxpress
