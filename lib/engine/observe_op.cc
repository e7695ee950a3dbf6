#include "engine/observe_op.h"

#include "engine/observed_graph.h"
#include "engine/ort_env.h"
#include "engine/ort_value.h"

namespace onnxpress {
namespace {

thread_local Observation* current = nullptr;

}  // namespace

Observation::Observation(const Observer& observer) : observer_(observer), outer_(current) { current = this; }

Observation::~Observation() { current = outer_; }

struct ObserveKernel {
  std::size_t index;

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    if (current == nullptr) return nullptr;  // a run that nobody watches
    current->status_ = guarded([&]() -> Status {
      const Ort::ConstValue input = Ort::KernelContext(context).GetInput(0);
      OP_LET(const ValueBytes value, value_bytes(input, "observed value"));
      return current->observer_(index, value.view());
    });
    return current->status_ ? nullptr : Ort::Status("the observer stopped the run", ORT_FAIL).release();
  }
};

namespace {

struct ObserveOp : Ort::CustomOpBase<ObserveOp, ObserveKernel, true> {
  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    const auto status = guarded([&]() -> Status {
      const auto index = Ort::ConstKernelInfo(info).GetAttribute<std::int64_t>(kObserveIndex);
      *kernel = new ObserveKernel{static_cast<std::size_t>(index)};
      return {};
    });
    return status ? nullptr : Ort::Status(status.error().what.c_str(), ORT_FAIL).release();
  }
  const char* GetName() const { return kObserveOp; }
  std::size_t GetInputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(std::size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED; }  // any
  std::size_t GetOutputTypeCount() const { return 0; }
  ONNXTensorElementDataType GetOutputType(std::size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED; }
};

}  // namespace

OrtCustomOpDomain* observe_domain() {
  static const ObserveOp op;
  static const auto* const domain = [] {
    auto* made = new Ort::CustomOpDomain(kObserveDomain);
    made->Add(&op);
    return made;
  }();
  return *domain;
}

}  // namespace onnxpress
