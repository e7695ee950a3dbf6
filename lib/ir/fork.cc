#include "ir/fork.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <map>

#include "ir/walk.h"

namespace onnxpress {

Result<Model> fork_model(const Model& model) {
  auto proto = std::make_unique<onnx::ModelProto>(model.proto());
  auto store = std::make_shared<TensorStore>();
  std::map<TensorStore::SlotId, TensorStore::SlotId> copied;
  Status status;
  for_each_tensor(*proto, [&](onnx::TensorProto& tensor, TensorPlace) {
    const auto slot = TensorStore::slot_of(tensor);
    if (!slot || !status) return;
    if (!copied.contains(*slot)) {
      auto bytes = model.store().read(*slot).and_then([&](const Bytes& payload) {
        return store->add_bytes({payload.data.begin(), payload.data.end()}, model.store().origin(*slot));
      });
      if (!bytes) {
        status = std::unexpected(std::move(bytes).error());
        return;
      }
      copied.emplace(*slot, *bytes);
    }
    TensorStore::detach(tensor);  // gives back how the file spelled data_location
    TensorStore::attach(tensor, copied.at(*slot));
  });
  OP_TRY(std::move(status));
  return Model(std::move(proto), std::move(store));
}

Graph& scope_in(const Model& copy, const Graph& graph) {
  const std::vector<Graph*>& originals = graph.model().graphs();
  return *copy.graphs()[static_cast<std::size_t>(std::ranges::find(originals, &graph) - originals.begin())];
}

}  // namespace onnxpress
