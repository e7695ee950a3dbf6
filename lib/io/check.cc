#include "io/check.h"

#include <onnx/checker.h>
#include <onnx/onnx_pb.h>

#include "ir/walk.h"

namespace onnxpress {

Status check_model(const Model& model) {
  onnx::ModelProto copy = model.proto();
  Status status;
  for_each_tensor(copy, [&](onnx::TensorProto& tensor, TensorPlace place) {
    const auto slot = TensorStore::slot_of(tensor);
    if (!slot || !status) return;
    TensorStore::detach(tensor);
    if (place != TensorPlace::sparse) {
      // The checker asks only whether a payload is there; its size was checked at load and at every write.
      tensor.set_raw_data("\0", 1);
      return;
    }
    auto bytes = model.store().read(*slot);
    if (!bytes) {
      status = std::unexpected(std::move(bytes).error());
      return;
    }
    tensor.set_raw_data(bytes->data.data(), bytes->data.size());
  });
  OP_TRY(std::move(status));
  try {
    onnx::checker::check_model(copy);
  } catch (const std::exception& error) {
    return fail(Code::bad_input, "the ONNX checker refuses the model: {}", error.what());
  }
  return {};
}

}  // namespace onnxpress
