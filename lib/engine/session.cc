#include "engine/session.h"

#include <fcntl.h>
#include <onnxruntime_session_options_config_keys.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>

#include "base/file.h"
#include "base/parallel.h"
#include "base/text.h"
#include "engine/observe_op.h"
#include "engine/optimized_graph.h"
#include "engine/ort_env.h"
#include "engine/ort_model.h"
#include "engine/ort_value.h"

namespace onnxpress {
namespace {

ValueType value_type(const Ort::TypeInfo& info) {
  ValueType type;
  type.is_tensor = info.GetONNXType() == ONNX_TYPE_TENSOR;
  if (!type.is_tensor) return type;
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  type.dtype = static_cast<DType>(tensor.GetElementType());
  const std::vector<std::int64_t> dims = tensor.GetShape();
  std::vector<const char*> symbols(dims.size(), "");
  if (!dims.empty()) tensor.GetSymbolicDimensions(symbols.data(), symbols.size());
  type.shape.emplace(dims.size());
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] >= 0)
      (*type.shape)[i].value = dims[i];
    else
      (*type.shape)[i].symbol = symbols[i] == nullptr ? "" : symbols[i];
  }
  return type;
}

Status check_input(const Tensor& tensor, const ValueInfo& wanted) {
  const ValueType& type = wanted.type;
  if (!type.is_tensor || !can_carry(type.dtype))
    return fail(Code::unsupported, "input '{}' is {}, which cannot be fed", wanted.name,
                type.is_tensor ? "of type " + std::string(dtype_name(type.dtype)) : "not a tensor");
  if (tensor.dtype() != type.dtype)
    return fail(Code::bad_input, "input '{}' is {}, the model wants {}", wanted.name, dtype_name(tensor.dtype()),
                dtype_name(type.dtype));
  if (tensor.dims().size() != type.shape->size())
    return fail(Code::bad_input, "input '{}' has shape {}, the model wants rank {}", wanted.name,
                dims_text(tensor.dims()), type.shape->size());
  for (std::size_t i = 0; i < type.shape->size(); ++i)
    if (const auto fixed = (*type.shape)[i].value; fixed && *fixed != tensor.dims()[i])
      return fail(Code::bad_input, "input '{}' has shape {}, the model wants {} in dimension {}", wanted.name,
                  dims_text(tensor.dims()), *fixed, i);
  return {};
}

Ort::Value make_value(const TensorView& view) {
  static const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  static std::byte nothing;  // a tensor without elements still needs an address
  // The runtime only reads inputs and weights; its interface has no const.
  auto* data = view.bytes.empty() ? &nothing : const_cast<std::byte*>(view.bytes.data());
  return Ort::Value::CreateTensor(memory, data, view.bytes.size(), view.dims.data(), view.dims.size(),
                                  static_cast<ONNXTensorElementDataType>(view.dtype));
}

Ort::SessionOptions runtime_options(unsigned threads, GraphOptimizationLevel level) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(static_cast<int>(threads == 0 ? available_cores() : threads));
  options.SetInterOpNumThreads(1);
  options.SetExecutionMode(ORT_SEQUENTIAL);
  options.SetGraphOptimizationLevel(level);
  options.SetDeterministicCompute(true);
  options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  // Runs go side by side: threads that spin while idle would take the cores from each other.
  options.AddConfigEntry(kOrtSessionOptionsConfigAllowIntraOpSpinning, "0");
  options.AddConfigEntry(kOrtSessionOptionsConfigAllowInterOpSpinning, "0");
  return options;
}

Ort::Session make_session(const OrtModel& model, Handover handover, Ort::SessionOptions& options) {
  if (handover == Handover::address) {
    // Some optimizers refuse tensors outside the proto when the model has no location, even those that are
    // addresses. This one cannot hold files, so nothing can be opened below it.
    options.AddConfigEntry(kOrtSessionOptionsModelExternalInitializersFileFolderPath, "/dev/null");
  } else if (!model.weights.empty()) {
    std::vector<std::string> names;
    std::vector<Ort::Value> values;
    for (const NamedTensor& weight : model.weights) {
      names.push_back(weight.name);
      values.push_back(make_value(weight.tensor.view()));
    }
    options.AddExternalInitializers(names, values);
  }
  return Ort::Session(ort_env(), model.proto.data(), model.proto.size(), options);
}

struct Opened {
  std::shared_ptr<const std::vector<NamedTensor>> weights;
  Ort::Session session{nullptr};
};

// By address where that is known to work. Should one of the runtime's optimizers not cope with it, the public way
// may still do; its error is the one to report.
Result<Opened> open_runtime(const Model& model, const SessionOptions& options,
                            const std::function<Ort::SessionOptions()>& make_options) {
  const auto attempt = [&](Handover handover) -> Result<Opened> {
    OP_LET(OrtModel built, make_ort_model(model, options, handover));
    Ort::SessionOptions runtime = make_options();
    if (!options.observe.empty()) {
      runtime.Add(observe_domain());
      // The arena grows in powers of two and holds the weights as well: a third more memory for no time.
      runtime.DisableCpuMemArena();
    }
    Opened opened;
    opened.session = make_session(built, handover, runtime);
    opened.weights = std::make_shared<std::vector<NamedTensor>>(std::move(built.weights));
    return opened;
  };
  const Handover first = handover_for(Ort::GetVersionString());
  auto opened = guarded([&] { return attempt(first); });
  if (opened || opened.error().code != Code::engine || first == Handover::inject) return opened;
  return guarded([&] { return attempt(Handover::inject); });
}

bool within(const void* data, std::span<const std::byte> range) {
  const auto* byte = static_cast<const std::byte*>(data);
  return std::less_equal<>()(range.data(), byte) && std::less<>()(byte, range.data() + range.size());
}

}  // namespace

struct Session::Impl {
  // Shared with every output: a tapped initializer may be handed out as it is.
  std::shared_ptr<const std::vector<NamedTensor>> weights;
  Ort::Session session{nullptr};
  std::vector<ValueInfo> inputs;
  std::vector<ValueInfo> defaulted;  // inputs with a default in the model
  std::vector<ValueInfo> outputs;
  std::vector<const char*> output_names;

  void describe();
  const ValueInfo* find(std::string_view name) const;
  Status check(std::span<const NamedTensor> given) const;
  std::vector<Ort::Value> call(std::span<const NamedTensor> given);
  Result<Tensor> output(Ort::Value value, const ValueInfo& info, std::span<const NamedTensor> given) const;
};

void Session::Impl::describe() {
  const Ort::AllocatorWithDefaultOptions allocator;
  for (std::size_t i = 0; i < session.GetInputCount(); ++i)
    inputs.push_back({session.GetInputNameAllocated(i, allocator).get(), value_type(session.GetInputTypeInfo(i))});
  for (std::size_t i = 0; i < session.GetOverridableInitializerCount(); ++i)
    defaulted.push_back({session.GetOverridableInitializerNameAllocated(i, allocator).get(),
                         value_type(session.GetOverridableInitializerTypeInfo(i))});
  for (std::size_t i = 0; i < session.GetOutputCount(); ++i)
    outputs.push_back({session.GetOutputNameAllocated(i, allocator).get(), value_type(session.GetOutputTypeInfo(i))});
  for (const ValueInfo& output : outputs) output_names.push_back(output.name.c_str());
}

const ValueInfo* Session::Impl::find(std::string_view name) const {
  for (const auto* list : {&inputs, &defaulted})
    if (const auto found = std::ranges::find(*list, name, &ValueInfo::name); found != list->end()) return &*found;
  return nullptr;
}

Status Session::Impl::check(std::span<const NamedTensor> given) const {
  for (auto tensor = given.begin(); tensor != given.end(); ++tensor) {
    const ValueInfo* wanted = find(tensor->name);
    if (wanted == nullptr) {
      std::vector<std::string> names;
      for (const ValueInfo& input : inputs) names.push_back(input.name);
      return fail(Code::bad_input, "the model has no input '{}'{}; it wants: {}", tensor->name,
                  did_you_mean(tensor->name, names), join(names, ", "));
    }
    if (std::ranges::find(given.begin(), tensor, tensor->name, &NamedTensor::name) != tensor)
      return fail(Code::bad_input, "input '{}' is given twice", tensor->name);
    OP_TRY(check_input(tensor->tensor, *wanted));
  }
  for (const ValueInfo& input : inputs)
    if (std::ranges::find(given, input.name, &NamedTensor::name) == given.end())
      return fail(Code::bad_input, "input '{}' is missing", input.name);
  return {};
}

std::vector<Ort::Value> Session::Impl::call(std::span<const NamedTensor> given) {
  std::vector<const char*> names;
  std::vector<Ort::Value> values;
  for (const NamedTensor& input : given) {
    names.push_back(input.name.c_str());
    values.push_back(make_value(input.tensor.view()));
  }
  return session.Run(Ort::RunOptions{nullptr}, names.data(), values.data(), values.size(), output_names.data(),
                     output_names.size());
}

Result<Tensor> Session::Impl::output(Ort::Value value, const ValueInfo& info,
                                     std::span<const NamedTensor> given) const {
  OP_LET(ValueBytes found, value_bytes(value.GetConst(), "output '" + info.name + "'"));
  // An input handed out unchanged belongs to the caller, who may drop it before the output.
  for (const NamedTensor& input : given)
    if (within(found.bytes.data(), input.tensor.bytes()))
      return Tensor(found.dtype, std::move(found.dims), std::vector<std::byte>(found.bytes.begin(), found.bytes.end()));
  struct Keep {
    std::shared_ptr<const std::vector<NamedTensor>> weights;
    Ort::Value value;
  };
  return Tensor(found.dtype, std::move(found.dims), found.bytes, std::make_shared<Keep>(weights, std::move(value)));
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;
const std::vector<ValueInfo>& Session::inputs() const { return impl_->inputs; }
const std::vector<ValueInfo>& Session::outputs() const { return impl_->outputs; }

Result<std::unique_ptr<Session>> Session::open(const Model& model, const SessionOptions& options) {
  OP_LET(Opened opened, open_runtime(model, options, [&] {
           return runtime_options(options.threads, options.optimize ? ORT_ENABLE_ALL : ORT_DISABLE_ALL);
         }));
  return guarded([&]() -> Result<std::unique_ptr<Session>> {
    auto impl = std::make_unique<Impl>();
    impl->weights = std::move(opened.weights);
    impl->session = std::move(opened.session);
    impl->describe();
    return std::unique_ptr<Session>(new Session(std::move(impl)));
  });
}

Result<std::vector<Tensor>> Session::run(std::span<const NamedTensor> inputs) const {
  OP_TRY(impl_->check(inputs));
  return guarded([&]() -> Result<std::vector<Tensor>> {
    std::vector<Ort::Value> values = impl_->call(inputs);
    std::vector<Tensor> tensors;
    tensors.reserve(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      OP_LET(Tensor tensor, impl_->output(std::move(values[i]), impl_->outputs[i], inputs));
      tensors.push_back(std::move(tensor));
    }
    return tensors;
  });
}

Status Session::observe(std::span<const NamedTensor> inputs, const Observer& observer) const {
  OP_TRY(impl_->check(inputs));
  Observation observation(observer);
  Status ran = guarded([&]() -> Status {
    impl_->call(inputs);
    return {};
  });
  OP_TRY(observation.take_status());
  return ran;
}

Result<double> Session::time(std::span<const NamedTensor> inputs) const {
  OP_TRY(impl_->check(inputs));
  return guarded([&]() -> Result<double> {
    const auto start = std::chrono::steady_clock::now();
    const auto values = impl_->call(inputs);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

namespace {

// The runtime writes its optimized graph to a path only; this one names memory.
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("onnxpress-graph", MFD_CLOEXEC)) {}
  ~MemoryFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  bool ok() const { return fd_ >= 0; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

  Result<std::vector<std::byte>> content() const {
    struct stat info = {};
    if (::fstat(fd_, &info) != 0) return fail(Code::io, "memory file: {}", errno_text(errno));
    std::vector<std::byte> bytes(static_cast<std::size_t>(info.st_size));
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::pread(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
      if (n <= 0) return fail(Code::io, "memory file: {}", n < 0 ? errno_text(errno) : "short read");
      done += static_cast<std::size_t>(n);
    }
    return bytes;
  }

 private:
  int fd_;
};

}  // namespace

Result<std::vector<std::byte>> optimized_graph(const Model& model, const OptimizedGraphOptions& choices) {
  const MemoryFile file;
  if (!file.ok()) return fail(Code::io, "memory file: {}", errno_text(errno));
  OP_TRY(open_runtime(model, {}, [&] {
    Ort::SessionOptions options = runtime_options(1, choices.extended ? ORT_ENABLE_EXTENDED : ORT_ENABLE_ALL);
    options.SetOptimizedModelFilePath(file.path().c_str());
    if (choices.int8_activations)
      options.AddConfigEntry(kOrtSessionOptionsQDQIsInt8Allowed, *choices.int8_activations ? "1" : "0");
    return options;
  }));
  return file.content();
}

Result<std::map<std::string, std::size_t>> optimized_ops(const Model& model, bool extended) {
  OP_LET(const std::vector<std::byte> bytes, optimized_graph(model, {.extended = extended}));
  return count_ops(bytes);
}

std::string runtime_version() { return "ONNX Runtime " + Ort::GetVersionString(); }

Result<std::vector<Tensor>> EngineRunner::run(const Model& model, std::span<const NamedTensor> inputs) {
  OP_LET(const auto session, Session::open(model, {.optimize = false}));
  return session->run(inputs);
}

}  // namespace onnxpress
