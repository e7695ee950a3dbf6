// ONNX element types (TensorProto.DataType, opset 22 and IR 11) and the tensors made of them. No protobuf here.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace onnxpress {

// Values equal TensorProto.DataType.
enum class DType : int {
  undefined = 0,
  f32 = 1,
  u8 = 2,
  i8 = 3,
  u16 = 4,
  i16 = 5,
  i32 = 6,
  i64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  c64 = 14,
  c128 = 15,
  bf16 = 16,
  f8e4m3fn = 17,
  f8e4m3fnuz = 18,
  f8e5m2 = 19,
  f8e5m2fnuz = 20,
  u4 = 21,
  i4 = 22,
  f4e2m1 = 23,
};

bool is_known(DType dtype);
unsigned bit_width(DType dtype);  // 4 for packed types; 0 for string and undefined
bool is_float(DType dtype);       // f16, bf16, f32, f64, fp8, fp4
bool is_integer(DType dtype);     // signed and unsigned, 4 to 64 bits; not bool
std::string_view dtype_name(DType dtype);  // ONNX text names: "float", "int8", "bfloat16", "float8e4m3fn", "uint4"
std::optional<DType> dtype_from_name(std::string_view name);

using Dims = std::vector<std::int64_t>;

// Product of dims; nullopt when a dim is negative or the product exceeds 2^62.
std::optional<std::uint64_t> element_count(std::span<const std::int64_t> dims);
// Bytes that `dims` of `dtype` occupy in raw_data (4-bit types: two per byte, rounded up). nullopt on overflow,
// negative dims, strings.
std::optional<std::uint64_t> byte_count(DType dtype, std::span<const std::int64_t> dims);
std::string dims_text(std::span<const std::int64_t> dims);  // "[64, 3, 3, 3]"

// The C++ type that holds one element of raw_data. 16-bit floats are held as their bits.
template <class T>
constexpr bool holds(DType dtype) {
  switch (dtype) {
    case DType::f32: return std::is_same_v<T, float>;
    case DType::f64: return std::is_same_v<T, double>;
    case DType::i8: return std::is_same_v<T, std::int8_t>;
    case DType::u8: return std::is_same_v<T, std::uint8_t>;
    case DType::boolean: return std::is_same_v<T, std::uint8_t> || std::is_same_v<T, bool>;
    case DType::i16: return std::is_same_v<T, std::int16_t>;
    case DType::u16:
    case DType::f16:
    case DType::bf16: return std::is_same_v<T, std::uint16_t>;
    case DType::i32: return std::is_same_v<T, std::int32_t>;
    case DType::u32: return std::is_same_v<T, std::uint32_t>;
    case DType::i64: return std::is_same_v<T, std::int64_t>;
    case DType::u64: return std::is_same_v<T, std::uint64_t>;
    case DType::f8e4m3fn:
    case DType::f8e4m3fnuz:
    case DType::f8e5m2:
    case DType::f8e5m2fnuz:
    case DType::u4:
    case DType::i4:
    case DType::f4e2m1: return std::is_same_v<T, std::uint8_t>;
    default: return false;
  }
}

// A dense tensor seen from outside: row-major little-endian bytes as in raw_data. Does not own.
struct TensorView {
  DType dtype = DType::undefined;
  std::span<const std::int64_t> dims;
  std::span<const std::byte> bytes;

  std::uint64_t size() const { return element_count(dims).value_or(0); }
  template <class T>
  std::span<const T> as() const {  // bytes are aligned for T wherever onnxpress hands out a view
    assert(holds<T>(dtype));
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

// A dense tensor that owns its bytes, or shares them read-only through `keep`.
class Tensor {
 public:
  Tensor() = default;
  // Zero-filled.
  Tensor(DType dtype, Dims dims);
  // Takes the bytes; their count must match.
  Tensor(DType dtype, Dims dims, std::vector<std::byte> bytes);
  // Shares bytes kept alive by `keep`; they become a private copy on first mutable access.
  Tensor(DType dtype, Dims dims, std::span<const std::byte> bytes, std::shared_ptr<const void> keep);

  template <class T>
  static Tensor of(DType dtype, Dims dims, std::span<const T> values) {
    assert(holds<T>(dtype));
    const auto raw = std::as_bytes(values);
    return Tensor(dtype, std::move(dims), std::vector<std::byte>(raw.begin(), raw.end()));
  }
  static Tensor of_floats(Dims dims, std::span<const float> values) { return of<float>(DType::f32, std::move(dims), values); }
  static Tensor of_int64s(Dims dims, std::span<const std::int64_t> values) { return of<std::int64_t>(DType::i64, std::move(dims), values); }
  template <class T>
  static Tensor scalar(DType dtype, T value) { return of<T>(dtype, {}, std::span<const T>(&value, 1)); }

  DType dtype() const { return dtype_; }
  const Dims& dims() const { return dims_; }
  std::uint64_t size() const { return element_count(dims_).value_or(0); }
  std::span<const std::byte> bytes() const { return shared_ ? view_ : std::span<const std::byte>(owned_); }
  std::span<std::byte> mutable_bytes();
  // The bytes themselves; copied when they are shared.
  std::vector<std::byte> take_bytes() && {
    if (shared_) return {view_.begin(), view_.end()};
    return std::move(owned_);
  }
  TensorView view() const { return {dtype_, dims_, bytes()}; }
  void reshape(Dims dims);  // same element count
  template <class T>
  std::span<const T> as() const { return view().as<T>(); }
  template <class T>
  std::span<T> as_mutable() {
    assert(holds<T>(dtype_));
    const auto raw = mutable_bytes();
    return {reinterpret_cast<T*>(raw.data()), raw.size() / sizeof(T)};
  }

 private:
  DType dtype_ = DType::undefined;
  Dims dims_;
  std::vector<std::byte> owned_;
  std::span<const std::byte> view_;
  std::shared_ptr<const void> shared_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Element-wise conversion between numeric types, round to nearest even, saturating for integers and fp8
// (ONNX Cast with saturate=1). Complex and string are refused.
Result<Tensor> convert(const TensorView& from, DType to);
// Any float or integer type as float values.
Result<std::vector<float>> to_floats(const TensorView& view);
// Any integer type (and bool) as int64 values.
Result<std::vector<std::int64_t>> to_int64s(const TensorView& view);

float half_to_float(std::uint16_t bits);
std::uint16_t float_to_half(float value);
float bfloat16_to_float(std::uint16_t bits);
std::uint16_t float_to_bfloat16(float value);
// fp8 formats of "FP8 Formats for Deep Learning" (arXiv 2209.05433) and the fnuz variants (arXiv 2206.02915).
float fp8_to_float(std::uint8_t bits, DType format);
std::uint8_t float_to_fp8(float value, DType format);  // saturating
float fp4_to_float(std::uint8_t nibble);               // e2m1
std::uint8_t float_to_fp4(float value);

}  // namespace onnxpress
