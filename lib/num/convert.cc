#include <algorithm>
#include <cmath>
#include <limits>

#include "num/small_float.h"
#include "num/tensor.h"

namespace onnxpress {
namespace {

// An integer as a double whose last bit is sticky: rounding it once more to a narrower float is then exact
// ("round to odd").
double sticky_double(std::uint64_t magnitude) {
  if (magnitude >> 53 == 0) return static_cast<double>(magnitude);
  const std::uint64_t kept = magnitude & ~std::uint64_t{0x7ff};
  return static_cast<double>(kept == magnitude ? kept : kept | 0x800);
}

double sticky_double(std::int64_t value) {
  const auto magnitude =
      value < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
  return value < 0 ? -sticky_double(magnitude) : sticky_double(magnitude);
}

template <class T>
T load(std::span<const std::byte> bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void store(std::span<std::byte> bytes, std::size_t index, T value) {
  std::memcpy(bytes.data() + index * sizeof(T), &value, sizeof(T));
}

// The low nibble comes first.
std::uint8_t load_nibble(std::span<const std::byte> bytes, std::size_t index) {
  const auto byte = std::to_integer<unsigned>(bytes[index / 2]);
  return static_cast<std::uint8_t>(index % 2 == 0 ? byte & 15U : byte >> 4U);
}

void store_nibble(std::span<std::byte> bytes, std::size_t index, unsigned nibble) {
  const auto old = std::to_integer<unsigned>(bytes[index / 2]);
  bytes[index / 2] = static_cast<std::byte>(index % 2 == 0 ? (old & 0xf0U) | nibble : (old & 0x0fU) | nibble << 4U);
}

template <class T>
T saturated(double value) {
  if (std::isnan(value)) return 0;
  value = std::nearbyint(value);
  // The upper limit of a 64-bit type is not a double; the power of two above it is.
  if (value >= std::ldexp(1.0, std::numeric_limits<T>::digits)) return std::numeric_limits<T>::max();
  if (value <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  return static_cast<T>(value);
}

template <class T>
T saturated(std::int64_t value) {
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    return value < 0 ? 0 : static_cast<T>(value);
  } else {
    using Limits = std::numeric_limits<T>;
    return static_cast<T>(std::clamp<std::int64_t>(value, static_cast<std::int64_t>(Limits::min()),
                                                   static_cast<std::int64_t>(Limits::max())));
  }
}

std::int64_t load_integer(DType dtype, std::span<const std::byte> bytes, std::size_t i) {
  switch (dtype) {
    case DType::i8:
      return load<std::int8_t>(bytes, i);
    case DType::u8:
      return load<std::uint8_t>(bytes, i);
    case DType::boolean:
      return load<std::uint8_t>(bytes, i) != 0;
    case DType::i16:
      return load<std::int16_t>(bytes, i);
    case DType::u16:
      return load<std::uint16_t>(bytes, i);
    case DType::i32:
      return load<std::int32_t>(bytes, i);
    case DType::u32:
      return load<std::uint32_t>(bytes, i);
    case DType::i64:
      return load<std::int64_t>(bytes, i);
    case DType::u64:  // only narrower or saturating targets follow
      return static_cast<std::int64_t>(
          std::min<std::uint64_t>(load<std::uint64_t>(bytes, i), std::numeric_limits<std::int64_t>::max()));
    case DType::u4:
      return load_nibble(bytes, i);
    case DType::i4:
      return static_cast<std::int64_t>(load_nibble(bytes, i) ^ 8U) - 8;
    default:
      assert(false);
      return 0;
  }
}

double load_number(DType dtype, std::span<const std::byte> bytes, std::size_t i) {
  switch (dtype) {
    case DType::f32:
      return load<float>(bytes, i);
    case DType::f64:
      return load<double>(bytes, i);
    case DType::f16:
      return half_to_float(load<std::uint16_t>(bytes, i));
    case DType::bf16:
      return bfloat16_to_float(load<std::uint16_t>(bytes, i));
    case DType::f4e2m1:
      return small_float_table(dtype)[load_nibble(bytes, i)];
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
      return small_float_table(dtype)[load<std::uint8_t>(bytes, i)];
    case DType::u64:
      return sticky_double(load<std::uint64_t>(bytes, i));
    default:
      return sticky_double(load_integer(dtype, bytes, i));
  }
}

// Value: double or std::int64_t, the exact source value.
template <class Value>
void store_integer(DType dtype, std::span<std::byte> bytes, std::size_t i, Value value) {
  switch (dtype) {
    case DType::i8:
      return store(bytes, i, saturated<std::int8_t>(value));
    case DType::u8:
      return store(bytes, i, saturated<std::uint8_t>(value));
    case DType::boolean:
      return store(bytes, i, static_cast<std::uint8_t>(value != Value{0}));
    case DType::i16:
      return store(bytes, i, saturated<std::int16_t>(value));
    case DType::u16:
      return store(bytes, i, saturated<std::uint16_t>(value));
    case DType::i32:
      return store(bytes, i, saturated<std::int32_t>(value));
    case DType::u32:
      return store(bytes, i, saturated<std::uint32_t>(value));
    case DType::i64:
      return store(bytes, i, saturated<std::int64_t>(value));
    case DType::u64:
      return store(bytes, i, saturated<std::uint64_t>(value));
    case DType::u4:
      return store_nibble(bytes, i, std::min<unsigned>(saturated<std::uint8_t>(value), 15U));
    case DType::i4:
      return store_nibble(bytes, i, static_cast<unsigned>(std::clamp<int>(saturated<std::int8_t>(value), -8, 7)) & 15U);
    default:
      assert(false);
  }
}

void store_float(DType dtype, std::span<std::byte> bytes, std::size_t i, double value) {
  switch (dtype) {
    case DType::f64:
      return store(bytes, i, value);
    case DType::f32:
      return store(bytes, i, static_cast<float>(value));
    case DType::f16:
    case DType::bf16:
      return store(bytes, i, encode_small(value, *small_float(dtype)));
    case DType::f4e2m1:
      return store_nibble(bytes, i, encode_small(value, *small_float(dtype)));
    default:
      return store(bytes, i, static_cast<std::uint8_t>(encode_small(value, *small_float(dtype))));
  }
}

bool is_number(DType dtype) { return is_float(dtype) || is_integer(dtype) || dtype == DType::boolean; }
bool is_integral(DType dtype) { return is_integer(dtype) || dtype == DType::boolean; }

Status check_bytes(const TensorView& view) {
  if (!is_number(view.dtype))
    return fail(Code::unsupported, "tensors of type {} hold no numbers", dtype_name(view.dtype));
  const auto want = byte_count(view.dtype, view.dims);
  if (!want || *want != view.bytes.size()) {
    return fail(Code::bad_input, "tensor {} {} does not match its {} bytes", dtype_name(view.dtype),
                dims_text(view.dims), view.bytes.size());
  }
  return {};
}

// The conversions whole models go through, without the detour over double.
bool convert_fast(const TensorView& from, DType to, std::span<std::byte> out) {
  const std::size_t n = from.size();
  const auto each = [&](auto load_as, auto&& one) {
    using From = decltype(load_as);
    for (std::size_t i = 0; i < n; ++i) store(out, i, one(load<From>(from.bytes, i)));
    return true;
  };
  if (from.dtype == DType::f32 && to == DType::f16) return each(float{}, float_to_half);
  if (from.dtype == DType::f32 && to == DType::bf16) return each(float{}, float_to_bfloat16);
  if (from.dtype == DType::f16 && to == DType::f32) return each(std::uint16_t{}, half_to_float);
  if (from.dtype == DType::bf16 && to == DType::f32) return each(std::uint16_t{}, bfloat16_to_float);
  return false;
}

// `out` has the byte_count of `to`; the view was checked.
void convert_into(const TensorView& from, DType to, std::span<std::byte> out) {
  const std::size_t n = from.size();
  if (from.dtype == to && to != DType::boolean) {
    std::ranges::copy(from.bytes, out.begin());
  } else if (convert_fast(from, to, out)) {
    return;
  } else if (is_integral(from.dtype) && is_integral(to)) {
    for (std::size_t i = 0; i < n; ++i) store_integer(to, out, i, load_integer(from.dtype, from.bytes, i));
  } else if (to == DType::f64 && from.dtype == DType::i64) {
    for (std::size_t i = 0; i < n; ++i) store(out, i, static_cast<double>(load<std::int64_t>(from.bytes, i)));
  } else if (to == DType::f64 && from.dtype == DType::u64) {
    for (std::size_t i = 0; i < n; ++i) store(out, i, static_cast<double>(load<std::uint64_t>(from.bytes, i)));
  } else if (is_integral(to)) {
    for (std::size_t i = 0; i < n; ++i) store_integer(to, out, i, load_number(from.dtype, from.bytes, i));
  } else {
    for (std::size_t i = 0; i < n; ++i) store_float(to, out, i, load_number(from.dtype, from.bytes, i));
  }
}

}  // namespace

Result<Tensor> convert(const TensorView& from, DType to) {
  OP_TRY(check_bytes(from));
  Dims dims(from.dims.begin(), from.dims.end());
  if (!is_number(to)) return fail(Code::unsupported, "tensors of type {} hold no numbers", dtype_name(to));
  if (!byte_count(to, dims))
    return fail(Code::bad_input, "tensor {} is too large for {}", dims_text(dims), dtype_name(to));
  Tensor out(to, std::move(dims));
  convert_into(from, to, out.mutable_bytes());
  return out;
}

Result<std::vector<float>> to_floats(const TensorView& view) {
  OP_TRY(check_bytes(view));
  std::vector<float> out(static_cast<std::size_t>(view.size()));
  convert_into(view, DType::f32, std::as_writable_bytes(std::span(out)));
  return out;
}

Result<std::vector<std::int64_t>> to_int64s(const TensorView& view) {
  OP_TRY(check_bytes(view));
  if (!is_integral(view.dtype)) return fail(Code::bad_input, "integers wanted, got {}", dtype_name(view.dtype));
  std::vector<std::int64_t> out(static_cast<std::size_t>(view.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = load_integer(view.dtype, view.bytes, i);
    if (view.dtype == DType::u64 && static_cast<std::uint64_t>(out[i]) != load<std::uint64_t>(view.bytes, i)) {
      return fail(Code::bad_input, "the value {} does not fit int64", load<std::uint64_t>(view.bytes, i));
    }
  }
  return out;
}

}  // namespace onnxpress
