#include "ir/payload.h"

#include <onnx/onnx_pb.h>

#include <bit>
#include <cstring>

#include "num/tensor.h"

namespace onnxpress {
namespace {

static_assert(std::endian::native == std::endian::little, "raw_data is little-endian");

template <class To, class Field>
std::vector<std::byte> narrow(const Field& field) {
  std::vector<std::byte> out(static_cast<std::size_t>(field.size()) * sizeof(To));
  std::size_t at = 0;
  for (const auto value : field) {
    const To element = static_cast<To>(value);
    std::memcpy(out.data() + at, &element, sizeof(To));
    at += sizeof(To);
  }
  return out;
}

// Entries that the typed field of a dtype must have for n elements.
std::uint64_t entries_for(DType dtype, std::uint64_t elements) {
  if (dtype == DType::c64 || dtype == DType::c128) return elements * 2;
  if (bit_width(dtype) == 4) return (elements + 1) / 2;
  return elements;
}

std::uint64_t typed_entries(const onnx::TensorProto& tensor, DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::c64:
      return static_cast<std::uint64_t>(tensor.float_data_size());
    case DType::f64:
    case DType::c128:
      return static_cast<std::uint64_t>(tensor.double_data_size());
    case DType::i64:
      return static_cast<std::uint64_t>(tensor.int64_data_size());
    case DType::u32:
    case DType::u64:
      return static_cast<std::uint64_t>(tensor.uint64_data_size());
    case DType::string:
      return static_cast<std::uint64_t>(tensor.string_data_size());
    default:
      return static_cast<std::uint64_t>(tensor.int32_data_size());
  }
}

int fields_used(const onnx::TensorProto& tensor) {
  return (tensor.float_data_size() > 0) + (tensor.int32_data_size() > 0) + (tensor.string_data_size() > 0) +
         (tensor.int64_data_size() > 0) + (tensor.double_data_size() > 0) + (tensor.uint64_data_size() > 0) +
         (tensor.has_raw_data() && !tensor.raw_data().empty());
}

}  // namespace

Status check_payload(const onnx::TensorProto& tensor) {
  const auto dtype = static_cast<DType>(tensor.data_type());
  const std::vector<std::int64_t> dims(tensor.dims().begin(), tensor.dims().end());
  const auto bad = [&](std::string_view why) {
    return fail(Code::bad_input, "tensor '{}' ({} {}): {}", tensor.name(), dtype_name(dtype), dims_text(dims), why);
  };
  if (!is_known(dtype)) return bad(fmt::format("unknown element type {}", tensor.data_type()));
  const auto elements = element_count(dims);
  if (!elements) return bad("negative or too large dimensions");
  if (tensor.data_location() == onnx::TensorProto::EXTERNAL) return {};
  if (fields_used(tensor) > 1) return bad("more than one data field");
  if (tensor.has_raw_data() && !tensor.raw_data().empty()) {
    const auto expected = byte_count(dtype, dims);
    if (!expected) return bad("raw_data cannot hold this type");
    if (*expected != tensor.raw_data().size())
      return bad(fmt::format("needs {} bytes, raw_data has {}", *expected, tensor.raw_data().size()));
    return {};
  }
  const std::uint64_t expected = entries_for(dtype, *elements);
  const std::uint64_t present = typed_entries(tensor, dtype);
  if (expected != present) return bad(fmt::format("needs {} values, {} present", expected, present));
  return {};
}

Status check_stored(const onnx::TensorProto& tensor, std::uint64_t bytes) {
  const std::vector<std::int64_t> dims(tensor.dims().begin(), tensor.dims().end());
  const auto dtype = static_cast<DType>(tensor.data_type());
  const auto expected = byte_count(dtype, dims);
  if (expected && *expected == bytes) return {};
  return fail(Code::bad_input, "{} {} needs {} bytes, {} present", dtype_name(dtype), dims_text(dims),
              expected ? std::to_string(*expected) : "unknown", bytes);
}

Result<std::vector<std::byte>> inline_payload(const onnx::TensorProto& tensor) {
  OP_TRY(check_payload(tensor));
  if (tensor.has_raw_data() && !tensor.raw_data().empty()) {
    const auto raw = std::as_bytes(std::span(tensor.raw_data()));
    return std::vector<std::byte>(raw.begin(), raw.end());
  }
  switch (static_cast<DType>(tensor.data_type())) {
    case DType::f32:
    case DType::c64:
      return narrow<float>(tensor.float_data());
    case DType::f64:
    case DType::c128:
      return narrow<double>(tensor.double_data());
    case DType::i64:
      return narrow<std::int64_t>(tensor.int64_data());
    case DType::u64:
      return narrow<std::uint64_t>(tensor.uint64_data());
    case DType::u32:
      return narrow<std::uint32_t>(tensor.uint64_data());
    case DType::i32:
      return narrow<std::int32_t>(tensor.int32_data());
    case DType::i16:
    case DType::u16:
    case DType::f16:
    case DType::bf16:
      return narrow<std::uint16_t>(tensor.int32_data());
    case DType::string:
      return fail(Code::unsupported, "tensor '{}' holds strings", tensor.name());
    default:
      return narrow<std::uint8_t>(tensor.int32_data());  // 8-bit types, bool, packed 4-bit types
  }
}

}  // namespace onnxpress
