#include "ir/sparse_initializer.h"

#include <onnx/onnx_pb.h>

#include <algorithm>

namespace onnxpress {
namespace {

constexpr std::int64_t kFirstWithSparse = 6;  // IR version

std::uint64_t payload_bytes(const onnx::TensorProto& tensor) {
  const Dims dims(tensor.dims().begin(), tensor.dims().end());
  return byte_count(static_cast<DType>(tensor.data_type()), dims).value_or(0);
}

}  // namespace

std::vector<SparseInitializer> sparse_initializers(const Graph& graph) {
  std::vector<SparseInitializer> found;
  if (graph.proto() == nullptr) return found;
  for (const auto& sparse : graph.proto()->sparse_initializer())
    found.push_back({.name = sparse.values().name(),
                     .dtype = static_cast<DType>(sparse.values().data_type()),
                     .dims = {sparse.dims().begin(), sparse.dims().end()},
                     .bytes = payload_bytes(sparse.values()) + payload_bytes(sparse.indices())});
  return found;
}

Result<Tensor> sparse_values(const Graph& graph, std::string_view name) {
  if (graph.proto() != nullptr)
    for (const auto& sparse : graph.proto()->sparse_initializer())
      if (sparse.values().name() == name) return graph.model().store().read(sparse.values());
  return fail(Code::internal, "no sparse initializer '{}'", name);
}

SparseInitializerWriter::SparseInitializerWriter(Model& model) : model_(model) {}
SparseInitializerWriter::~SparseInitializerWriter() = default;

Status SparseInitializerWriter::add(Graph& scope, std::string_view name, const Dims& dims, Tensor values,
                                    std::span<const std::uint32_t> positions) {
  auto sparse = std::make_unique<onnx::SparseTensorProto>();
  const std::vector<std::int64_t> indices(positions.begin(), positions.end());
  sparse->mutable_values()->set_name(std::string(name));
  OP_TRY(model_.store().write(*sparse->mutable_values(), std::move(values)));
  OP_TRY(model_.store().write(*sparse->mutable_indices(),
                              Tensor::of_int64s({static_cast<std::int64_t>(indices.size())}, indices)));
  for (const std::int64_t dim : dims) sparse->add_dims(dim);
  added_.emplace_back(&scope, std::move(sparse));
  return {};
}

bool SparseInitializerWriter::commit() {
  if (added_.empty()) return false;
  for (auto& [scope, sparse] : added_) scope->proto()->mutable_sparse_initializer()->AddAllocated(sparse.release());
  added_.clear();
  model_.set_ir_version(std::max(model_.ir_version(), kFirstWithSparse));
  model_.invalidate();
  return true;
}

}  // namespace onnxpress
