// What operator rules say: which indices of the operands of a node stand and fall together, and which must stay.
//
// A rule names axes by operand and position; axes that do not exist, or whose size is not known, are accepted
// everywhere: what would be tied to them is fixed, with that reason. So a rule for a well-formed node cannot crash, or
// cut anything, on a malformed one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "depend/atoms.h"
#include "depend/dependency.h"
#include "depend/products.h"
#include "depend/scope.h"

namespace onnxpress {

// Part in a unit's kind, as bits: what made the axis.
enum AxisOrigin : std::uint8_t { from_conv = 1, from_matmul = 2, from_recurrent = 4, from_softmax = 8 };

class Ties {
 public:
  Ties(const Scope& scope, const DependencyOptions& options);

  // --- for the engine ---
  void restart();                  // everything apart again
  void enter(std::uint32_t node);  // rules speak about this node from now on
  void fix_scope();                // what stays whatever the rules say
  void decide_products();          // after the first round; see products.h
  bool revise_products();          // after each further one; true when another is needed
  struct Tie {
    Atoms::Atom a = 0, b = 0;
    std::uint32_t node = kNone;
  };
  struct Reason {
    std::uint32_t node = kNone;
    std::string text;
  };
  Atoms& atoms() { return atoms_; }
  const Atoms& atoms() const { return atoms_; }
  const std::vector<Tie>& tied() const { return ties_; }
  const std::vector<Reason>& reasons() const { return reasons_; }
  const std::vector<std::uint32_t>& reason_of() const { return reason_of_; }            // by atom; 0 = none
  const std::vector<std::uint32_t>& approximate_of() const { return approximate_of_; }  // by atom; 0 = none
  const std::vector<AxisRole>& roles() const { return roles_; }                         // by axis
  std::vector<AxisRole>& roles() { return roles_; }
  const std::vector<std::uint8_t>& origins() const { return origins_; }  // by axis

  // --- for rules: operands ---
  const Node& node() const { return scope_.nodes[node_].node; }
  std::int64_t opset() const { return opset_; }
  std::size_t inputs() const { return scope_.nodes[node_].in.size(); }
  std::size_t outputs() const { return scope_.nodes[node_].out.size(); }
  Operand in(std::size_t slot) const;  // kNone when absent
  Operand out(std::size_t slot) const;
  bool constant(Operand operand) const;
  std::optional<std::int64_t> rank(Operand operand) const;
  Axis axis(Operand operand, std::int64_t position) const;  // negative counts from the end; kNone when there is none
  std::optional<std::int64_t> size(Axis axis) const;
  const Scope& scope() const { return scope_; }
  // The integers of an input that is constant, or computed but always the same; none when it is absent or neither.
  Result<std::optional<std::vector<std::int64_t>>> literal(std::size_t slot) const;
  // attribute `key` as an axis of `operand`, not negative; none when it is out of range or the rank is not known
  std::optional<std::int64_t> axis_attr(std::string_view key, std::int64_t fallback, Operand operand) const;

  // --- for rules: what stands and falls together ---
  void tie(Axis a, Axis b);                   // a[i] ~ b[i]
  void tie_broadcast(Axis part, Axis whole);  // the same, but a `part` of size 1 is tied to nothing
  void tie_operands(Operand a, Operand b);    // all axes, which must match
  // a[a_start + i * a_step] ~ b[b_start + i * b_step] for i < count
  struct Run {
    Axis axis = kNone;
    std::int64_t start = 0, step = 1;
  };
  void tie_run(Run a, Run b, std::int64_t count);
  void tie_digit(Axis big, Axis small, std::int64_t stride);  // big[i] ~ small[i / stride % size(small)]
  void tie_blocks(Axis axis, std::int64_t block);             // all indices of each block
  void tie_positions(Axis axis, std::int64_t block);          // equal positions of all blocks
  void tie_at(Axis a, std::int64_t i, Axis b, std::int64_t j);
  void tie_factors(std::span<const Factor> factors);  // of a Reshape; see products.h

  // --- for rules: what must stay ---
  void fix(Axis axis, std::string_view reason);
  void fix_at(Axis axis, std::int64_t index, std::string_view reason);
  void fix_operand(Operand operand, std::string_view reason);
  void fix_all(std::string_view reason);  // of all operands of the node
  // Statistics are taken over the axis: removing is not zeroing.
  void approximate(Axis axis, std::string_view reason);

  // --- for rules: what it is ---
  void role(Axis axis, AxisRole role);
  void origin(Axis axis, AxisOrigin origin);

 private:
  std::optional<std::vector<std::int64_t>> computed_literal(std::string_view value) const;
  Atoms::Atom atom(Axis axis, std::int64_t index) const {
    return scope_.axes[axis].first + static_cast<Atoms::Atom>(index);
  }
  std::uint32_t count(Axis axis) const { return axis == kNone ? 0 : scope_.axes[axis].count; }
  void unite(Atoms::Atom a, Atoms::Atom b);
  std::uint32_t add_reason(std::string_view text);
  bool mismatch(Axis a, Axis b);

  const Scope& scope_;
  const DependencyOptions options_;
  std::int64_t opset_ = 0;
  Atoms atoms_;
  std::vector<Tie> ties_;
  std::vector<Reason> reasons_;
  std::vector<std::uint32_t> reason_of_, approximate_of_;
  std::vector<AxisRole> roles_;
  std::vector<std::uint8_t> origins_;
  std::vector<std::optional<std::string>> refusals_;  // by node, once asked
  Products products_;
  std::uint32_t node_ = kNone;
};

}  // namespace onnxpress
