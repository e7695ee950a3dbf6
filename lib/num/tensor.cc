#include "num/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "num/small_float.h"

namespace onnxpress {
namespace {

struct TypeInfo {
  std::string_view name;
  unsigned bits;
};

// By TensorProto.DataType value.
constexpr std::array<TypeInfo, 24> kTypes = {{
    {"undefined", 0},      {"float", 32},    {"uint8", 8},        {"int8", 8},           {"uint16", 16},
    {"int16", 16},         {"int32", 32},    {"int64", 64},       {"string", 0},         {"bool", 8},
    {"float16", 16},       {"double", 64},   {"uint32", 32},      {"uint64", 64},        {"complex64", 64},
    {"complex128", 128},   {"bfloat16", 16}, {"float8e4m3fn", 8}, {"float8e4m3fnuz", 8}, {"float8e5m2", 8},
    {"float8e5m2fnuz", 8}, {"uint4", 4},     {"int4", 4},         {"float4e2m1", 4},
}};

const TypeInfo& info_of(DType dtype) { return kTypes[is_known(dtype) ? static_cast<std::size_t>(dtype) : 0]; }

}  // namespace

bool is_known(DType dtype) {
  return static_cast<int>(dtype) >= 1 && static_cast<int>(dtype) < static_cast<int>(kTypes.size());
}

unsigned bit_width(DType dtype) { return info_of(dtype).bits; }

bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f64 || small_float(dtype) != nullptr; }

bool is_integer(DType dtype) {
  switch (dtype) {
    case DType::u4:
    case DType::i4:
    case DType::u8:
    case DType::i8:
    case DType::u16:
    case DType::i16:
    case DType::u32:
    case DType::i32:
    case DType::u64:
    case DType::i64:
      return true;
    default:
      return false;
  }
}

std::string_view dtype_name(DType dtype) { return info_of(dtype).name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  const auto found = std::ranges::find(kTypes.begin() + 1, kTypes.end(), name, &TypeInfo::name);
  if (found == kTypes.end()) return std::nullopt;
  return static_cast<DType>(found - kTypes.begin());
}

std::optional<std::uint64_t> element_count(std::span<const std::int64_t> dims) {
  if (std::ranges::any_of(dims, [](std::int64_t dim) { return dim < 0; })) return std::nullopt;
  if (std::ranges::find(dims, 0) != dims.end()) return 0;
  std::uint64_t count = 1;
  for (const std::int64_t dim : dims) {
    const auto product = checked_mul(count, static_cast<std::uint64_t>(dim));
    if (!product || *product > std::uint64_t{1} << 62) return std::nullopt;
    count = *product;
  }
  return count;
}

std::optional<std::uint64_t> byte_count(DType dtype, std::span<const std::int64_t> dims) {
  const auto count = element_count(dims);
  const unsigned bits = bit_width(dtype);
  if (!count || bits == 0) return std::nullopt;
  if (bits == 4) return *count / 2 + *count % 2;
  return checked_mul(*count, bits / 8);
}

std::string dims_text(std::span<const std::int64_t> dims) { return fmt::format("[{}]", fmt::join(dims, ", ")); }

// --- Tensor ---

Tensor::Tensor(DType dtype, Dims dims) : dtype_(dtype), dims_(std::move(dims)) {
  const auto bytes = byte_count(dtype_, dims_);
  assert(bytes);
  owned_.resize(static_cast<std::size_t>(*bytes));
}

Tensor::Tensor(DType dtype, Dims dims, std::vector<std::byte> bytes)
    : dtype_(dtype), dims_(std::move(dims)), owned_(std::move(bytes)) {
  assert(byte_count(dtype_, dims_) == owned_.size());
}

Tensor::Tensor(DType dtype, Dims dims, std::span<const std::byte> bytes, std::shared_ptr<const void> keep)
    : dtype_(dtype), dims_(std::move(dims)), view_(bytes), shared_(std::move(keep)) {
  assert(byte_count(dtype_, dims_) == bytes.size());
  if (!shared_) owned_.assign(bytes.begin(), bytes.end());
}

std::span<std::byte> Tensor::mutable_bytes() {
  if (shared_) {
    owned_.assign(view_.begin(), view_.end());
    shared_.reset();
    view_ = {};
  }
  return owned_;
}

void Tensor::reshape(Dims dims) {
  assert(element_count(dims) == element_count(dims_));
  dims_ = std::move(dims);
}

}  // namespace onnxpress
