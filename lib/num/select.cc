#include "num/select.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

constexpr int kDigitBits = 16;
constexpr std::size_t kBins = std::size_t{1} << kDigitBits;

std::uint64_t float_key(float value) { return std::bit_cast<std::uint32_t>(value) & 0x7fffffffU; }
std::uint64_t double_key(double value) { return std::bit_cast<std::uint64_t>(value) & ~(std::uint64_t{1} << 63); }

// Calls fn(element type, key of an element) for the tensor's type and the key width. Narrower floats widen exactly,
// so keys of different types compare like their values.
template <class Fn>
auto with_keys(DType dtype, bool wide, Fn fn) {
  const auto by_width = [&](auto element, auto to_float) {
    using T = decltype(element);
    if (wide) return fn(element, [=](T value) { return double_key(static_cast<double>(to_float(value))); });
    return fn(element, [=](T value) { return float_key(to_float(value)); });
  };
  switch (dtype) {
    case DType::f16:
      return by_width(std::uint16_t{}, half_to_float);
    case DType::bf16:
      return by_width(std::uint16_t{}, bfloat16_to_float);
    case DType::f64:
      assert(wide);
      return fn(double{}, double_key);
    default:
      assert(dtype == DType::f32);
      return by_width(float{}, [](float value) { return value; });
  }
}

// Zeroes the first `limit` elements whose key is not 0 and satisfies `chosen`.
template <class Chosen>
std::uint64_t zero_where(Tensor& tensor, bool wide, std::uint64_t limit, Chosen chosen) {
  return with_keys(tensor.dtype(), wide, [&](auto element, auto key) -> std::uint64_t {
    using T = decltype(element);
    const auto hit = [&](T value) {
      const std::uint64_t k = key(value);
      return k != 0 && chosen(k);
    };
    const auto values = tensor.as<T>();
    const auto first = static_cast<std::size_t>(std::ranges::find_if(values, hit) - values.begin());
    if (limit == 0 || first == values.size()) return 0;
    std::uint64_t zeroed = 0;
    for (T& value : tensor.as_mutable<T>().subspan(first)) {
      if (!hit(value)) continue;
      value = T{};
      if (++zeroed == limit) break;
    }
    return zeroed;
  });
}

}  // namespace

bool has_magnitudes(DType dtype) {
  return dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64;
}

std::uint64_t fraction_of(double fraction, std::uint64_t n) {
  assert(fraction >= 0 && fraction <= 1);
  const double product = fraction * static_cast<double>(n);
  const double whole = std::round(product);
  const bool rounding_only = std::abs(product - whole) <= 4 * std::numeric_limits<double>::epsilon() * product;
  return std::min(n, static_cast<std::uint64_t>(rounding_only ? whole : std::floor(product)));
}

MagnitudeSelect::MagnitudeSelect(std::uint64_t k, bool wide)
    : wide_(wide), shift_(k == 0 ? -kDigitBits : (wide ? 64 : 32) - kDigitBits), left_(k), total_(kBins) {}

MagnitudeSelect::Histogram MagnitudeSelect::count(const TensorView& tensor) const {
  assert(!done());
  Histogram counts(kBins);
  with_keys(tensor.dtype, wide_, [&](auto element, auto key) {
    using T = decltype(element);
    for (const T value : tensor.as<T>()) {
      const std::uint64_t digits = key(value) >> shift_;
      if (digits >> kDigitBits == prefix_) ++counts[digits & (kBins - 1)];
    }
  });
  return counts;
}

void MagnitudeSelect::add(const Histogram& counts) {
  std::ranges::transform(total_, counts, total_.begin(), std::plus<>());
}

void MagnitudeSelect::end_round() {
  assert(!done());
  std::size_t bin = 0;
  while (left_ > total_[bin]) {
    left_ -= total_[bin];
    ++bin;
    assert(bin < kBins);  // else fewer than k elements were counted
  }
  prefix_ = prefix_ << kDigitBits | bin;
  shift_ -= kDigitBits;
  std::ranges::fill(total_, 0);
}

MagnitudeCut MagnitudeSelect::cut() const {
  assert(done());
  return {prefix_, left_, wide_};
}

MagnitudeCut smallest_magnitudes(const TensorView& tensor, std::uint64_t k) {
  MagnitudeSelect select(k, tensor.dtype == DType::f64);
  while (!select.done()) {
    select.add(select.count(tensor));
    select.end_round();
  }
  return select.cut();
}

std::uint64_t count_zeros(const TensorView& tensor) {
  return with_keys(tensor.dtype, tensor.dtype == DType::f64, [&](auto element, auto key) {
    using T = decltype(element);
    return static_cast<std::uint64_t>(std::ranges::count_if(tensor.as<T>(), [&](T value) { return key(value) == 0; }));
  });
}

std::uint64_t zero_below(Tensor& tensor, const MagnitudeCut& cut) {
  return zero_where(tensor, cut.wide, tensor.size(), [&](std::uint64_t key) { return key < cut.key; });
}

std::uint64_t zero_ties(Tensor& tensor, const MagnitudeCut& cut, std::uint64_t limit) {
  return zero_where(tensor, cut.wide, limit, [&](std::uint64_t key) { return key == cut.key; });
}

}  // namespace onnxpress
