#include "report/nonzero.h"

#include <utility>

namespace onnxpress {
namespace {

// All bits but the sign: zero exactly for +0 and -0. The fnuz formats have no -0, their 0x80 is NaN.
std::uint64_t count_floats(const TensorView& tensor) {
  const std::size_t size = tensor.size();
  std::uint64_t count = 0;
  const auto masked = [&]<class T>(std::span<const T> values, T mask) {
    for (const T value : values) count += (value & mask) != 0;
  };
  switch (tensor.dtype) {
    case DType::f32:
      for (const float value : tensor.as<float>()) count += value != 0;
      break;
    case DType::f64:
      for (const double value : tensor.as<double>()) count += value != 0;
      break;
    case DType::f16:
    case DType::bf16:
      masked(tensor.as<std::uint16_t>(), std::uint16_t{0x7fff});
      break;
    case DType::f8e4m3fn:
    case DType::f8e5m2:
      masked(tensor.as<std::uint8_t>(), std::uint8_t{0x7f});
      break;
    case DType::f8e4m3fnuz:
    case DType::f8e5m2fnuz:
      masked(tensor.as<std::uint8_t>(), std::uint8_t{0xff});
      break;
    default: {  // f4e2m1, two to a byte, low nibble first
      const auto bytes = tensor.as<std::uint8_t>();
      for (std::size_t i = 0; i < size; ++i) count += ((bytes[i / 2] >> (i % 2 * 4)) & 0x7) != 0;
    }
  }
  return count;
}

// get(i) is element i as int64.
template <class Get>
std::uint64_t count_integers(const TensorView& tensor, const ZeroPoints& zero_points, Get get) {
  const std::size_t size = tensor.size();
  const auto& zeros = zero_points.values;
  std::uint64_t count = 0;
  const bool per_axis = zeros.size() > 1 && zero_points.axis < tensor.dims.size() &&
                        std::cmp_equal(tensor.dims[zero_points.axis], zeros.size());
  if (!per_axis) {
    const std::int64_t zero = zeros.size() == 1 ? zeros[0] : 0;
    for (std::size_t i = 0; i < size; ++i) count += get(i) != zero;
    return count;
  }
  std::size_t inner = 1;
  for (std::size_t axis = zero_points.axis + 1; axis < tensor.dims.size(); ++axis)
    inner *= static_cast<std::size_t>(tensor.dims[axis]);
  for (std::size_t i = 0; i < size; ++i) count += get(i) != zeros[i / inner % zeros.size()];
  return count;
}

}  // namespace

std::uint64_t count_nonzeros(const TensorView& tensor, const ZeroPoints& zero_points) {
  if (is_float(tensor.dtype)) return count_floats(tensor);
  const auto plain = [&]<class T>(std::span<const T> values) {
    return count_integers(tensor, zero_points,
                          [values](std::size_t i) { return static_cast<std::int64_t>(values[i]); });
  };
  switch (tensor.dtype) {
    case DType::i8:
      return plain(tensor.as<std::int8_t>());
    case DType::u8:
      return plain(tensor.as<std::uint8_t>());
    case DType::i16:
      return plain(tensor.as<std::int16_t>());
    case DType::u16:
      return plain(tensor.as<std::uint16_t>());
    case DType::i32:
      return plain(tensor.as<std::int32_t>());
    case DType::u32:
      return plain(tensor.as<std::uint32_t>());
    case DType::i64:
      return plain(tensor.as<std::int64_t>());
    case DType::u64:
      return plain(tensor.as<std::uint64_t>());
    case DType::u4:
    case DType::i4: {
      const auto bytes = tensor.as<std::uint8_t>();
      const bool is_signed = tensor.dtype == DType::i4;
      return count_integers(tensor, zero_points, [bytes, is_signed](std::size_t i) -> std::int64_t {
        const int nibble = (bytes[i / 2] >> (i % 2 * 4)) & 0xf;
        return is_signed && nibble >= 8 ? nibble - 16 : nibble;
      });
    }
    default:
      return tensor.size();
  }
}

}  // namespace onnxpress
