// Initializers in the sparse form of the format: the values that are not zero, and an int64 position for each. Runtimes
// make them dense as they load. To every pass such a weight is no constant.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/model.h"

namespace onnx {
class SparseTensorProto;
}

namespace onnxpress {

struct SparseInitializer {
  std::string name;
  DType dtype = DType::undefined;
  Dims dims;                // of the dense tensor
  std::uint64_t bytes = 0;  // of values and positions in the file
};

// Those of one scope, in file order. Declared sizes are those of the file, unchecked.
std::vector<SparseInitializer> sparse_initializers(const Graph& graph);
// The stored values, one axis. Error bad_input when the payload does not fit its declaration.
Result<Tensor> sparse_values(const Graph& graph, std::string_view name);

// Adds sparse initializers; like Rewriter, payloads are stored by the call and the graph sees them after commit().
class SparseInitializerWriter {
 public:
  explicit SparseInitializerWriter(Model& model);
  ~SparseInitializerWriter();

  // `positions` are ascending, of the dense tensor's elements in row-major order; values [positions]. The name must be
  // free by the time of commit().
  Status add(Graph& scope, std::string_view name, const Dims& dims, Tensor values,
             std::span<const std::uint32_t> positions);
  // True when there were any. Raises the IR version to the first that has the form.
  bool commit();

 private:
  Model& model_;
  std::vector<std::pair<Graph*, std::unique_ptr<onnx::SparseTensorProto>>> added_;
};

}  // namespace onnxpress
