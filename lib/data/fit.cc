#include "data/fit.h"

#include <algorithm>

#include "base/text.h"

namespace onnxpress {

std::string type_text(const ValueType& type) {
  std::string text(dtype_name(type.dtype));
  if (!type.shape) return text + " of unknown rank";
  std::vector<std::string> parts;
  for (const Dim& dim : *type.shape)
    parts.push_back(dim.value ? std::to_string(*dim.value) : dim.symbol.empty() ? "?" : escape_control(dim.symbol));
  return text + "[" + join(parts, ", ") + "]";
}

Status check_shape(std::span<const std::int64_t> dims, const ValueInfo& input) {
  if (!input.type.shape) return {};
  const auto& declared = *input.type.shape;
  bool fits = declared.size() == dims.size();
  for (std::size_t i = 0; fits && i < dims.size(); ++i) fits = !declared[i].value || *declared[i].value == dims[i];
  if (fits) return {};
  return fail(Code::bad_input, "{} does not fit input '{}' of type {}", dims_text(dims), escape_control(input.name),
              type_text(input.type));
}

Status check_kind(DType from, const ValueInfo& input) {
  if (!input.type.is_tensor)
    return fail(Code::bad_input, "input '{}' is not a dense tensor; no data format can feed it",
                escape_control(input.name));
  const DType to = input.type.dtype;
  if (from == to || (is_integer(from) && is_integer(to)) || (is_float(from) && is_float(to))) return {};
  return fail(Code::bad_input, "{} values cannot become the {} of input '{}'", dtype_name(from), dtype_name(to),
              escape_control(input.name));
}

Result<Tensor> fit_tensor(Tensor tensor, const ValueInfo& input) {
  const DType from = tensor.dtype(), to = input.type.dtype;
  if (from == to) return tensor;
  OP_TRY(check_kind(from, input));
  OP_LET(Tensor converted, convert(tensor.view(), to));
  if (is_integer(from)) {
    OP_LET(const Tensor back, convert(converted.view(), from));
    if (!std::ranges::equal(back.bytes(), tensor.bytes()))
      return fail(Code::bad_input, "a value does not fit into the {} of input '{}'", dtype_name(to),
                  escape_control(input.name));
  }
  return converted;
}

Result<std::uint64_t> allocation_bytes(DType dtype, std::span<const std::int64_t> dims, const std::string& name) {
  const auto bytes = byte_count(dtype, dims);
  if (!bytes)
    return fail(Code::bad_input, "{}: {} of {} is no possible tensor", name, dims_text(dims), dtype_name(dtype));
  if (*bytes > kMaxTensorBytes)
    return fail(Code::resource, "{}: one run takes {} ({} of {}), more than {}", name, human_bytes(*bytes),
                dims_text(dims), dtype_name(dtype), human_bytes(kMaxTensorBytes));
  return *bytes;
}

}  // namespace onnxpress
