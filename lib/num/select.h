// Exact selection of the smallest magnitudes of one tensor, or of many that are streamed, in bounded memory.
//
// The bits of an IEEE number without its sign, read as an integer, are in the order of its magnitude. So the k-th
// smallest |w| is found by a most-significant-digit radix search over such keys: each round counts one 16-bit digit
// of the keys that share the digits found so far (65536 counters), then narrows to the bin that holds the k-th.
// Two rounds over float keys, four over double keys. -0 equals 0; NaN stands above infinity.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "num/tensor.h"

namespace onnxpress {

// f16, bf16, f32 and f64 have magnitudes; nothing else has.
bool has_magnitudes(DType dtype);

// floor(fraction * n) for a fraction in [0, 1]. A product that only misses a whole number by the rounding of the
// fraction counts as that number: 0.29 of 100 is 29.
std::uint64_t fraction_of(double fraction, std::uint64_t n);

// What a selection of k elements came to: every element whose key is below `key`, and of the elements equal to it the
// first `ties` in (tensor, index) order. k = 0 is the default: nothing.
struct MagnitudeCut {
  std::uint64_t key = 0;
  std::uint64_t ties = 0;
  bool wide = false;  // the key is the bits of a double, else those of a float
};

// Finds the cut of the k smallest magnitudes. While not done(): add(count(tensor)) for every tensor, then
// end_round(). count() is const and may run in parallel; the order of add() does not matter.
class MagnitudeSelect {
 public:
  using Histogram = std::vector<std::uint64_t>;  // 65536 counters

  // k is at most the number of elements. `wide` when any of the tensors is f64; without it such a tensor asserts.
  MagnitudeSelect(std::uint64_t k, bool wide);
  bool done() const { return shift_ < 0; }
  Histogram count(const TensorView& tensor) const;
  void add(const Histogram& counts);
  void end_round();
  MagnitudeCut cut() const;  // once done

 private:
  bool wide_;
  int shift_;                 // of the digit this round counts; negative when done
  std::uint64_t prefix_ = 0;  // the digits found so far
  std::uint64_t left_;        // how many are still to be selected among keys with this prefix
  Histogram total_;
};

// The cut of one tensor.
MagnitudeCut smallest_magnitudes(const TensorView& tensor, std::uint64_t k);

std::uint64_t count_zeros(const TensorView& tensor);

// Sets the elements below cut.key to +0 and returns how many that changed; elements that are zero stay as they are.
// The tensor's bytes are copied only when something changes.
std::uint64_t zero_below(Tensor& tensor, const MagnitudeCut& cut);
// The same for the first `limit` elements equal to cut.key.
std::uint64_t zero_ties(Tensor& tensor, const MagnitudeCut& cut, std::uint64_t limit);

}  // namespace onnxpress
