#include "num/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/checked.h"

namespace onnxpress {
namespace {

struct TypeInfo {
  std::string_view name;
  unsigned bits;
};

// By TensorProto.DataType value.
constexpr std::array<TypeInfo, 24> kTypes = {{
    {"undefined", 0},    {"float", 32},           {"uint8", 8},       {"int8", 8},     {"uint16", 16},
    {"int16", 16},       {"int32", 32},           {"int64", 64},      {"string", 0},   {"bool", 8},
    {"float16", 16},     {"double", 64},          {"uint32", 32},     {"uint64", 64},  {"complex64", 64},
    {"complex128", 128}, {"bfloat16", 16},        {"float8e4m3fn", 8}, {"float8e4m3fnuz", 8}, {"float8e5m2", 8},
    {"float8e5m2fnuz", 8}, {"uint4", 4},          {"int4", 4},        {"float4e2m1", 4},
}};

const TypeInfo& info_of(DType dtype) {
  return kTypes[is_known(dtype) ? static_cast<std::size_t>(dtype) : 0];
}

// A float format of at most 16 bits: sign, exponent, mantissa, most significant bit first.
struct SmallFloat {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  std::uint16_t max;       // magnitude code of the largest finite value
  std::uint16_t overflow;  // magnitude code of what lies beyond it: infinity, or max when saturating
  std::uint16_t nan;       // magnitude code; a fnuz format's only NaN is the code of -0
  bool fnuz;               // "finite, NaN, unsigned zero"
  bool has_infinity;
};

constexpr SmallFloat kHalf = {5, 10, 15, 0x7bff, 0x7c00, 0x7e00, false, true};
constexpr SmallFloat kBfloat16 = {8, 7, 127, 0x7f7f, 0x7f80, 0x7fc0, false, true};
constexpr SmallFloat kE4m3fn = {4, 3, 7, 0x7e, 0x7e, 0x7f, false, false};
constexpr SmallFloat kE4m3fnuz = {4, 3, 8, 0x7f, 0x7f, 0x80, true, false};
constexpr SmallFloat kE5m2 = {5, 2, 15, 0x7b, 0x7b, 0x7f, false, true};
constexpr SmallFloat kE5m2fnuz = {5, 2, 16, 0x7f, 0x7f, 0x80, true, false};
constexpr SmallFloat kE2m1 = {2, 1, 1, 0x7, 0x7, 0x7, false, false};  // no NaN: it becomes the largest value

const SmallFloat* small_format(DType dtype) {
  switch (dtype) {
    case DType::f16: return &kHalf;
    case DType::bf16: return &kBfloat16;
    case DType::f8e4m3fn: return &kE4m3fn;
    case DType::f8e4m3fnuz: return &kE4m3fnuz;
    case DType::f8e5m2: return &kE5m2;
    case DType::f8e5m2fnuz: return &kE5m2fnuz;
    case DType::f4e2m1: return &kE2m1;
    default: return nullptr;
  }
}

// Round half to even from the exact value, so there is no double rounding by way of float.
std::uint16_t encode(double value, const SmallFloat& format) {
  const int sign_shift = format.exponent_bits + format.mantissa_bits;
  const auto sign = static_cast<std::uint16_t>((std::signbit(value) ? 1 : 0) << sign_shift);
  if (std::isnan(value)) return format.fnuz ? format.nan : static_cast<std::uint16_t>(sign | format.nan);
  const double magnitude = std::fabs(value);
  std::uint16_t code = 0;
  if (std::isinf(magnitude)) {
    code = format.overflow;
  } else if (magnitude > 0) {
    const int exponent = std::max(std::ilogb(magnitude), 1 - format.bias);
    if (exponent + format.bias >= (1 << format.exponent_bits)) {
      code = format.overflow;
    } else {
      // Mantissa with its hidden bit; a carry out of it steps the exponent by plain addition.
      const auto mantissa = std::lrint(std::ldexp(magnitude, format.mantissa_bits - exponent));
      const long whole = (static_cast<long>(exponent + format.bias - 1) << format.mantissa_bits) + mantissa;
      code = whole > format.max ? format.overflow : static_cast<std::uint16_t>(whole);
    }
  }
  if (format.fnuz && code == 0) return 0;
  return static_cast<std::uint16_t>(sign | code);
}

double decode(std::uint16_t bits, const SmallFloat& format) {
  const int sign_shift = format.exponent_bits + format.mantissa_bits;
  const bool negative = (bits >> sign_shift & 1) != 0;
  const int magnitude = bits & ((1 << sign_shift) - 1);
  double value = 0;
  if (format.fnuz && negative && magnitude == 0) return std::numeric_limits<double>::quiet_NaN();
  if (format.has_infinity && magnitude >> format.mantissa_bits == (1 << format.exponent_bits) - 1) {
    const bool infinite = (magnitude & ((1 << format.mantissa_bits) - 1)) == 0;
    value = infinite ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else if (magnitude > format.max) {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    const int exponent = std::max(magnitude >> format.mantissa_bits, 1);
    const int hidden = magnitude - ((exponent - 1) << format.mantissa_bits);
    value = std::ldexp(static_cast<double>(hidden), exponent - format.bias - format.mantissa_bits);
  }
  return negative ? -value : value;
}

// 256 decoded values; the 4-bit format uses the first 16.
const std::array<float, 256>& small_table(DType dtype) {
  static constexpr std::array formats = {DType::f8e4m3fn, DType::f8e4m3fnuz, DType::f8e5m2, DType::f8e5m2fnuz,
                                         DType::f4e2m1};
  static const auto tables = [] {
    std::array<std::array<float, 256>, formats.size()> all = {};
    for (std::size_t f = 0; f < formats.size(); ++f) {
      for (std::size_t code = 0; code < 256; ++code) {
        all[f][code] = static_cast<float>(decode(static_cast<std::uint16_t>(code), *small_format(formats[f])));
      }
    }
    return all;
  }();
  const auto found = std::ranges::find(formats, dtype);
  assert(found != formats.end());
  return tables[static_cast<std::size_t>(found - formats.begin())];
}

// An integer as a double whose last bit is sticky: rounding it once more to a narrower float is then exact
// ("round to odd").
double sticky_double(std::uint64_t magnitude) {
  if (magnitude >> 53 == 0) return static_cast<double>(magnitude);
  const std::uint64_t kept = magnitude & ~std::uint64_t{0x7ff};
  return static_cast<double>(kept == magnitude ? kept : kept | 0x800);
}

double sticky_double(std::int64_t value) {
  const auto magnitude = value < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
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
    return static_cast<T>(
        std::clamp<std::int64_t>(value, static_cast<std::int64_t>(Limits::min()), static_cast<std::int64_t>(Limits::max())));
  }
}

std::int64_t load_integer(DType dtype, std::span<const std::byte> bytes, std::size_t i) {
  switch (dtype) {
    case DType::i8: return load<std::int8_t>(bytes, i);
    case DType::u8: return load<std::uint8_t>(bytes, i);
    case DType::boolean: return load<std::uint8_t>(bytes, i) != 0;
    case DType::i16: return load<std::int16_t>(bytes, i);
    case DType::u16: return load<std::uint16_t>(bytes, i);
    case DType::i32: return load<std::int32_t>(bytes, i);
    case DType::u32: return load<std::uint32_t>(bytes, i);
    case DType::i64: return load<std::int64_t>(bytes, i);
    case DType::u64:  // only narrower or saturating targets follow
      return static_cast<std::int64_t>(std::min<std::uint64_t>(load<std::uint64_t>(bytes, i), std::numeric_limits<std::int64_t>::max()));
    case DType::u4: return load_nibble(bytes, i);
    case DType::i4: return static_cast<std::int64_t>(load_nibble(bytes, i) ^ 8U) - 8;
    default: assert(false); return 0;
  }
}

double load_number(DType dtype, std::span<const std::byte> bytes, std::size_t i) {
  switch (dtype) {
    case DType::f32: return load<float>(bytes, i);
    case DType::f64: return load<double>(bytes, i);
    case DType::f16: return half_to_float(load<std::uint16_t>(bytes, i));
    case DType::bf16: return bfloat16_to_float(load<std::uint16_t>(bytes, i));
    case DType::f4e2m1: return small_table(dtype)[load_nibble(bytes, i)];
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz: return small_table(dtype)[load<std::uint8_t>(bytes, i)];
    case DType::u64: return sticky_double(load<std::uint64_t>(bytes, i));
    default: return sticky_double(load_integer(dtype, bytes, i));
  }
}

// Value: double or std::int64_t, the exact source value.
template <class Value>
void store_integer(DType dtype, std::span<std::byte> bytes, std::size_t i, Value value) {
  switch (dtype) {
    case DType::i8: return store(bytes, i, saturated<std::int8_t>(value));
    case DType::u8: return store(bytes, i, saturated<std::uint8_t>(value));
    case DType::boolean: return store(bytes, i, static_cast<std::uint8_t>(value != Value{0}));
    case DType::i16: return store(bytes, i, saturated<std::int16_t>(value));
    case DType::u16: return store(bytes, i, saturated<std::uint16_t>(value));
    case DType::i32: return store(bytes, i, saturated<std::int32_t>(value));
    case DType::u32: return store(bytes, i, saturated<std::uint32_t>(value));
    case DType::i64: return store(bytes, i, saturated<std::int64_t>(value));
    case DType::u64: return store(bytes, i, saturated<std::uint64_t>(value));
    case DType::u4: return store_nibble(bytes, i, std::min<unsigned>(saturated<std::uint8_t>(value), 15U));
    case DType::i4:
      return store_nibble(bytes, i, static_cast<unsigned>(std::clamp<int>(saturated<std::int8_t>(value), -8, 7)) & 15U);
    default: assert(false);
  }
}

void store_float(DType dtype, std::span<std::byte> bytes, std::size_t i, double value) {
  switch (dtype) {
    case DType::f64: return store(bytes, i, value);
    case DType::f32: return store(bytes, i, static_cast<float>(value));
    case DType::f16:
    case DType::bf16: return store(bytes, i, encode(value, *small_format(dtype)));
    case DType::f4e2m1: return store_nibble(bytes, i, encode(value, kE2m1));
    default: return store(bytes, i, static_cast<std::uint8_t>(encode(value, *small_format(dtype))));
  }
}

bool is_number(DType dtype) { return is_float(dtype) || is_integer(dtype) || dtype == DType::boolean; }
bool is_integral(DType dtype) { return is_integer(dtype) || dtype == DType::boolean; }

Status check_bytes(const TensorView& view) {
  if (!is_number(view.dtype)) return fail(Code::unsupported, "tensors of type {} hold no numbers", dtype_name(view.dtype));
  const auto want = byte_count(view.dtype, view.dims);
  if (!want || *want != view.bytes.size()) {
    return fail(Code::bad_input, "tensor {} {} does not match its {} bytes", dtype_name(view.dtype), dims_text(view.dims),
                view.bytes.size());
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

// --- types and sizes ---

bool is_known(DType dtype) { return static_cast<int>(dtype) >= 1 && static_cast<int>(dtype) < static_cast<int>(kTypes.size()); }

unsigned bit_width(DType dtype) { return info_of(dtype).bits; }

bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f64 || small_format(dtype) != nullptr; }

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
    case DType::i64: return true;
    default: return false;
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

// --- conversions ---

Result<Tensor> convert(const TensorView& from, DType to) {
  OP_TRY(check_bytes(from));
  Dims dims(from.dims.begin(), from.dims.end());
  if (!is_number(to)) return fail(Code::unsupported, "tensors of type {} hold no numbers", dtype_name(to));
  if (!byte_count(to, dims)) return fail(Code::bad_input, "tensor {} is too large for {}", dims_text(dims), dtype_name(to));
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

// --- 16-bit floats, by bit manipulation: whole models go through them ---

float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  const std::uint32_t magnitude = bits & 0x7fffU;
  if (magnitude >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13U);
  if (magnitude >= 0x0400U) return std::bit_cast<float>(sign | ((magnitude << 13U) + ((127U - 15U) << 23U)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
}

std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16U & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t code = 0;
  if (magnitude > 0x7f800000U) {
    code = 0x7e00U | (magnitude >> 13U & 0x3ffU);  // quiet, payload kept
  } else if (magnitude >= 0x477ff000U) {           // 65520, halfway to the value after the largest, rounds up
    code = 0x7c00U;
  } else if (magnitude >= 0x38800000U) {  // 2^-14, the smallest normal
    code = (magnitude - ((127U - 15U) << 23U) + 0xfffU + (magnitude >> 13U & 1U)) >> 13U;
  } else {
    // Adding 0.5 leaves multiples of 2^-24 in the low bits, rounded half to even by the addition itself.
    code = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<std::uint32_t>(0.5F);
  }
  return static_cast<std::uint16_t>(sign | code);
}

float bfloat16_to_float(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }

std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>(bits >> 16U | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16U & 1U)) >> 16U);
}

float fp8_to_float(std::uint8_t bits, DType format) { return small_table(format)[bits]; }

std::uint8_t float_to_fp8(float value, DType format) {
  assert(bit_width(format) == 8 && is_float(format));
  return static_cast<std::uint8_t>(encode(static_cast<double>(value), *small_format(format)));
}

float fp4_to_float(std::uint8_t nibble) { return small_table(DType::f4e2m1)[nibble & 15U]; }

std::uint8_t float_to_fp4(float value) { return static_cast<std::uint8_t>(encode(static_cast<double>(value), kE2m1)); }

}  // namespace onnxpress
