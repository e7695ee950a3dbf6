#include "engine/ort_model.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <unordered_set>

#include "engine/observed_graph.h"
#include "ir/walk.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kMaxProto = std::numeric_limits<std::int32_t>::max();
// Index tensors up to this size are serialized: shape inference wants to look inside them.
constexpr std::uint64_t kShapeLimit = std::uint64_t{64} * 1024;

std::unexpected<Error> too_large() {
  return fail(Code::resource, "the model without its large weights is over 2 GB, more than ONNX Runtime can be given");
}

// Writes stored payloads into the copy, or sets them aside for the handover.
class Payloads {
 public:
  Payloads(const TensorStore& store, Handover handover) : store_(store), handover_(handover) {}

  Status main_initializer(onnx::TensorProto& tensor) {
    const auto slot = TensorStore::slot_of(tensor);
    if (!slot) return inlined(tensor);
    const bool index = tensor.data_type() == onnx::TensorProto::INT64 || tensor.data_type() == onnx::TensorProto::INT32;
    if (index && store_.length(*slot) <= kShapeLimit) return inlined(tensor);
    OP_LET(Tensor bytes, store_.read(tensor));
    TensorStore::detach(tensor);
    tensor.set_data_location(onnx::TensorProto::EXTERNAL);
    const auto entry = [&](const char* key, std::string value) {
      auto* added = tensor.add_external_data();
      added->set_key(key);
      added->set_value(std::move(value));
    };
    if (handover_ == Handover::address) {
      entry("location", "*/_ORT_MEM_ADDR_/*");
      entry("offset", std::to_string(reinterpret_cast<std::uintptr_t>(bytes.bytes().data())));
      entry("length", std::to_string(bytes.bytes().size()));
    } else {
      entry("location", "onnxpress-memory");
    }
    weights_.push_back({tensor.name(), std::move(bytes)});
    return {};
  }

  // Anything but a main-graph initializer: the payload goes into the proto.
  Status inlined(onnx::TensorProto& tensor) {
    if (const auto slot = TensorStore::slot_of(tensor)) {
      const std::uint64_t length = store_.length(*slot);
      if (length > kMaxProto - inlined_) return too_large();
      inlined_ += length;
      OP_LET(const Bytes bytes, store_.read(*slot));
      TensorStore::detach(tensor);
      tensor.set_raw_data(bytes.data.data(), bytes.data.size());
    }
    // The loader stores or refuses every external tensor; the runtime must never open a file by itself.
    assert(tensor.data_location() != onnx::TensorProto::EXTERNAL);
    return {};
  }

  std::vector<NamedTensor> take() { return std::move(weights_); }

 private:
  const TensorStore& store_;
  Handover handover_;
  std::uint64_t inlined_ = 0;
  std::vector<NamedTensor> weights_;
};

Status add_taps(onnx::GraphProto& proto, const Graph& graph, const std::vector<std::string>& taps) {
  std::unordered_set<std::string> outputs;
  for (const auto& output : proto.output()) outputs.insert(output.name());
  for (const std::string& tap : taps) {
    if (!outputs.insert(tap).second) continue;
    if (!graph.defines(tap)) return fail(Code::bad_input, "the main graph has no value '{}' to observe", tap);
    const ValueType type = graph.type(tap);
    if (!type.is_tensor) return fail(Code::bad_input, "value '{}' is not a tensor and cannot be observed", tap);
    auto* output = proto.add_output();
    output->set_name(tap);
    // The shape is left to the runtime's own inference: a stale declared one would be refused.
    if (type.dtype != DType::undefined)
      output->mutable_type()->mutable_tensor_type()->set_elem_type(static_cast<int>(type.dtype));
  }
  return {};
}

Status free_initializers(onnx::GraphProto& proto, const std::vector<std::string>& names) {
  std::unordered_set<std::string> inputs;
  for (const auto& input : proto.input()) inputs.insert(input.name());
  for (const std::string& name : names) {
    auto& all = *proto.mutable_initializer();
    const auto found = std::ranges::find(all, name, [](const auto& tensor) { return tensor.name(); });
    if (found == all.end()) return fail(Code::bad_input, "the main graph has no initializer '{}' to feed", name);
    if (inputs.insert(name).second) {
      auto* input = proto.add_input();
      input->set_name(name);
      auto* type = input->mutable_type()->mutable_tensor_type();
      type->set_elem_type(found->data_type());
      auto* shape = type->mutable_shape();
      for (const std::int64_t dim : found->dims()) shape->add_dim()->set_dim_value(dim);
    }
    all.erase(found);
  }
  return {};
}

using OpCounts = std::map<std::string, std::size_t>;

void count_nodes(const google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes, OpCounts& counts) {
  for (const auto& node : nodes) {
    const bool standard = node.domain().empty() || node.domain() == "ai.onnx";
    ++counts[standard ? node.op_type() : node.domain() + "." + node.op_type()];
    for (const auto& attribute : node.attribute()) {
      if (attribute.has_g()) count_nodes(attribute.g().node(), counts);
      for (const auto& body : attribute.graphs()) count_nodes(body.node(), counts);
    }
  }
}

}  // namespace

Handover handover_for(std::string_view runtime_version) {
  return runtime_version.starts_with("1.21.") ? Handover::address : Handover::inject;
}

Result<OrtModel> make_ort_model(const Model& model, const SessionOptions& options, Handover handover) {
  onnx::ModelProto copy = model.proto();
  copy.clear_training_info();
  OP_TRY(free_initializers(*copy.mutable_graph(), options.initializers_as_inputs));
  OP_TRY(add_taps(*copy.mutable_graph(), model.main(), options.taps));
  if (!options.observe.empty()) OP_TRY(observe_values(copy, model, options.observe));
  Payloads payloads(model.store(), handover);
  Status status;
  for_each_tensor(copy, [&](onnx::TensorProto& tensor, TensorPlace place) {
    if (!status) return;
    status = place == TensorPlace::initializer ? payloads.main_initializer(tensor) : payloads.inlined(tensor);
  });
  OP_TRY(std::move(status));
  OrtModel out;
  if (copy.ByteSizeLong() > kMaxProto) return too_large();
  if (!copy.SerializeToString(&out.proto)) return fail(Code::internal, "the model could not be serialized");
  out.weights = payloads.take();
  return out;
}

Result<OpCounts> count_ops(std::span<const std::byte> serialized) {
  onnx::ModelProto model;
  if (serialized.size() > kMaxProto || !model.ParseFromArray(serialized.data(), static_cast<int>(serialized.size())))
    return fail(Code::engine, "ONNX Runtime's optimized graph could not be read");
  OpCounts counts;
  count_nodes(model.graph().node(), counts);
  for (const auto& function : model.functions()) count_nodes(function.node(), counts);
  return counts;
}

}  // namespace onnxpress
