// Integer codes for the weights of one output channel, chosen by the error of the channel's output instead of the
// error of each weight.
//
//   f(q, s) = sum over rows (y - s q x)^2 + ridge = s^2 q' G q - 2 s q' h + constant
//
// with G = sum x x' and h = sum y x (lib/calib/gram.h). The ridge rho sum_k G_kk (s q_k - w_k)^2 ties codes to the
// float weights w where few rows say little; rho is the damping.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "num/quantize.h"

namespace onnxpress {

// `value` as a multiple of 2^-bits of the power of two next to `unit`. Runtimes sum in another order for another batch
// size; what is left of that after this is the same number with overwhelming probability.
double round_to_bits(double value, double unit, int bits);

// What codes a channel may take.
struct RoundingLimits {
  CodeRange codes{-127, 127};
  std::int64_t max_move = 0;  // at most so far from the nearest code of the float weight; 0 = no limit
  float least_scale = 0;      // the int32 bias overflows below
  // Codes of one sign at `pairs[k]` and k sum to at most 128, so that products with uint8 do not saturate at 16 bits
  // (onnxruntime-int8: x86 without VNNI). Empty: no such limit.
  std::vector<std::size_t> pairs = {};
};

struct RoundedChannel {
  std::vector<std::int32_t> codes;
  float scale = 1;
  double objective = 0;  // f without the constant, ridge included
};

// What is tried beyond rounding in order and moving single codes.
struct RoundingEffort {
  bool scales = false;  // several scales around the given one, each brought to its optimum for the codes found
  bool pairs = true;    // moves of two codes at once
};

// Solves for all channels that share a G. Thread-safe after make().
class RoundingSolver {
 public:
  // gram [length, length] is symmetric. Errors: resource when it cannot be factored however much is added to it.
  static Result<RoundingSolver> make(std::span<const double> gram, std::size_t length, double damping);

  // `weight` and `target` (h) have `length` elements. Sequential rounding with error feedback (Frantar et al., arXiv
  // 2210.17323, as Babai's nearest plane on the Cholesky factor, largest diagonal first), then descent over single
  // codes, and pairs of codes, until no change of them lowers f.
  RoundedChannel solve(std::span<const double> weight, std::span<const double> target, float scale,
                       const RoundingLimits& limits, RoundingEffort effort) const;

 private:
  struct Work;
  Work prepare(std::span<const double> weight, std::span<const double> target, const RoundingLimits& limits) const;
  void round_in_order(Work& work) const;
  void descend(Work& work) const;
  bool move_single(Work& work, std::size_t k) const;
  bool move_pairs(Work& work) const;
  std::pair<std::size_t, double> best_answer(const Work& work, std::size_t k, double by) const;
  void apply(Work& work, std::size_t k, double by) const;
  void add_row(Work& work, std::size_t k, double by) const;
  void refresh(Work& work) const;
  double objective(const Work& work) const;
  float best_scale(const Work& work) const;
  void try_scale(Work& work, float scale, bool rescale) const;

  std::size_t length_ = 0;
  std::vector<std::size_t> order_;  // solver position -> column, ascending diagonal
  std::vector<double> gram_;        // damped, in solver order
  std::vector<double> factor_;      // upper triangular r with r' r = gram_
  std::vector<double> inverse_;     // of its diagonal
  std::vector<double> pull_;        // in solver order: what was added to the diagonal
};

}  // namespace onnxpress
