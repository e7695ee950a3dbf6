// LSTM, GRU, RNN: hidden unit h is one row of every gate in W and R, and one column of R.
//
//   H_t = f(W X_t + R H_(t-1) + B)      W [dirs, gates*H, I]: rows {g*H + h}, R [dirs, gates*H, H]: rows {g*H + h} and
//                                       column h, B [dirs, 2*gates*H], P [dirs, 3*H]; Y, Y_h, Y_c, initial_h, initial_c
//                                       end in H. Both directions share the axis of H, so h goes in both.
#include <array>

#include "depend/rules.h"

namespace onnxpress {
namespace {

constexpr std::size_t kX = 0, kW = 1, kR = 2, kB = 3, kLengths = 4, kInitialH = 5, kInitialC = 6, kPeepholes = 7;

Status recurrent(Ties& ties) {
  const Operand x = ties.in(kX), w = ties.in(kW), r = ties.in(kR);
  const Axis hidden = ties.axis(r, 2);
  if (ties.rank(w) != 3 || ties.rank(r) != 3 || ties.rank(x) != 3 || !ties.size(hidden)) {
    ties.fix_all("shapes not known");
    return {};
  }
  ties.tie(ties.axis(x, 2), ties.axis(w, 2));
  for (const std::size_t slot : {kW, kR, kB, kPeepholes}) {
    const Operand operand = ties.in(slot);
    if (operand == kNone) continue;
    ties.tie_digit(ties.axis(operand, 1), hidden, 1);
    ties.fix(ties.axis(operand, 0), "directions");
  }
  for (const std::size_t slot : {kInitialH, kInitialC})
    if (ties.in(slot) != kNone) ties.tie(ties.axis(ties.in(slot), -1), hidden);
  for (std::size_t slot = 0; slot < ties.outputs(); ++slot)
    if (ties.out(slot) != kNone) ties.tie(ties.axis(ties.out(slot), -1), hidden);
  // Steps, batch, directions.
  const auto fix_leading = [&](Operand operand) {
    for (std::int64_t i = 0; i + 1 < ties.rank(operand).value_or(0); ++i)
      ties.fix(ties.axis(operand, i), "steps, batch and directions");
  };
  for (const std::size_t slot : {kX, kInitialH, kInitialC}) fix_leading(ties.in(slot));
  for (std::size_t slot = 0; slot < ties.outputs(); ++slot) fix_leading(ties.out(slot));
  ties.fix_operand(ties.in(kLengths), "lengths of the sequences");

  ties.role(ties.axis(w, 1), AxisRole::produces);
  ties.role(ties.axis(w, 2), AxisRole::consumes);
  ties.role(ties.axis(r, 1), AxisRole::produces);
  ties.role(hidden, AxisRole::consumes);
  ties.role(ties.axis(ties.in(kB), 1), AxisRole::bias);
  for (const std::int64_t i : {1, 2}) ties.origin(ties.axis(r, i), from_recurrent);
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "LSTM", recurrent},
    OpRule{"", "GRU", recurrent},
    OpRule{"", "RNN", recurrent},
};

}  // namespace

std::span<const OpRule> recurrent_rules() { return kRules; }

}  // namespace onnxpress
