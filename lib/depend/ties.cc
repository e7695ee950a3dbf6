#include "depend/ties.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace onnxpress {

Ties::Ties(const Scope& scope, const DependencyOptions& options)
    : scope_(scope),
      options_(options),
      opset_(scope.graph->model().opset()),
      atoms_(scope.atom_count),
      refusals_(scope.nodes.size()) {
  restart();
}

void Ties::restart() {
  atoms_.separate();
  ties_.clear();
  reasons_.assign(1, {});
  reason_of_.assign(scope_.atom_count, 0);
  approximate_of_.assign(scope_.atom_count, 0);
  roles_.assign(scope_.axes.size(), AxisRole::follows);
  origins_.assign(scope_.axes.size(), 0);
  products_.restart();
  node_ = kNone;
}

void Ties::enter(std::uint32_t node) { node_ = node; }

void Ties::fix_scope() {
  node_ = kNone;
  for (Operand operand = 0; operand < scope_.tensors.size(); ++operand)
    if (!scope_.tensors[operand].stays.empty()) fix_operand(operand, scope_.tensors[operand].stays);
}

void Ties::decide_products() { products_.decide(scope_, atoms_); }
bool Ties::revise_products() { return products_.revise(scope_, atoms_); }

Operand Ties::in(std::size_t slot) const { return slot < inputs() ? scope_.nodes[node_].in[slot] : kNone; }
Operand Ties::out(std::size_t slot) const { return slot < outputs() ? scope_.nodes[node_].out[slot] : kNone; }

bool Ties::constant(Operand operand) const {
  return operand != kNone && (scope_.tensors[operand].ref.is_constant() || scope_.tensors[operand].derived);
}

std::optional<std::int64_t> Ties::rank(Operand operand) const {
  if (operand == kNone || !scope_.tensors[operand].ranked) return std::nullopt;
  return scope_.tensors[operand].rank;
}

Axis Ties::axis(Operand operand, std::int64_t position) const {
  const auto axes = rank(operand);
  if (!axes) return kNone;
  if (position < 0) position += *axes;
  if (position < 0 || position >= *axes) return kNone;
  return scope_.axis(operand, static_cast<std::size_t>(position));
}

std::optional<std::int64_t> Ties::size(Axis axis) const {
  return axis == kNone ? std::nullopt : scope_.axes[axis].size;
}

Result<std::optional<std::vector<std::int64_t>>> Ties::literal(std::size_t slot) const {
  if (in(slot) == kNone) return std::nullopt;
  if (!scope_.tensors[in(slot)].ref.is_constant()) return computed_literal(node().input(slot));
  auto tensor = scope_.graph->constant(node().input(slot));
  if (!tensor) return rethrow(std::move(tensor).error(), "node " + node().label());
  if (!*tensor || !(is_integer((*tensor)->dtype()) || (*tensor)->dtype() == DType::boolean)) return std::nullopt;
  OP_LET(std::vector<std::int64_t> values, to_int64s((*tensor)->view()));
  return std::optional(std::move(values));
}

// Numbers that are computed, but from nothing that changes between runs.
std::optional<std::vector<std::int64_t>> Ties::computed_literal(std::string_view value) const {
  const SizeList sizes = scope_.sizes.integers(value);
  if (!sizes) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const Dim& dim : *sizes) {
    if (!dim.value) return std::nullopt;
    numbers.push_back(*dim.value);
  }
  return numbers;
}

std::optional<std::int64_t> Ties::axis_attr(std::string_view key, std::int64_t fallback, Operand operand) const {
  const auto axes = rank(operand);
  if (!axes) return std::nullopt;
  std::int64_t position = node().attr_int(key, fallback);
  if (position < 0) position += *axes;
  if (position < 0 || position >= *axes) return std::nullopt;
  return position;
}

void Ties::unite(Atoms::Atom a, Atoms::Atom b) {
  if (a == b) return;
  atoms_.unite(a, b);
  ties_.push_back({a, b, node_});
}

// Whether one of the two cannot be tied; then what can be cut of the other is fixed.
bool Ties::mismatch(Axis a, Axis b) {
  const auto known = [&](Axis axis) { return axis != kNone && scope_.axes[axis].size.has_value(); };
  if (known(a) && known(b)) return false;
  for (const auto& [axis, other] : {std::pair(a, b), std::pair(b, a)}) {
    if (count(axis) == 0 || known(other)) continue;
    fix(axis, other == kNone ? "what it meets has no known shape" : "size not known of " + scope_.axis_text(other));
  }
  return true;
}

void Ties::tie(Axis a, Axis b) {
  if (a == b || mismatch(a, b)) return;
  if (scope_.axes[a].size != scope_.axes[b].size) {
    fix(a, "sizes do not match");
    fix(b, "sizes do not match");
    return;
  }
  for (std::uint32_t i = 0; i < count(a); ++i) unite(atom(a, i), atom(b, i));
}

void Ties::tie_broadcast(Axis part, Axis whole) {
  if (part == kNone || size(part) == 1) return;
  tie(part, whole);
}

void Ties::tie_operands(Operand a, Operand b) {
  if (a == kNone || b == kNone) return;
  if (!rank(a) || rank(a) != rank(b)) {
    fix_operand(a, "rank not known");
    fix_operand(b, "rank not known");
    return;
  }
  for (std::int64_t i = 0; i < *rank(a); ++i) tie(axis(a, i), axis(b, i));
}

void Ties::tie_run(Run a, Run b, std::int64_t length) {
  if (mismatch(a.axis, b.axis) || length <= 0) return;
  const auto inside = [&](const Run& run) {
    const std::int64_t last = run.start + (length - 1) * run.step;
    return std::min(run.start, last) >= 0 && std::max(run.start, last) < *size(run.axis);
  };
  if (!inside(a) || !inside(b)) {
    fix(a.axis, "out of range");
    fix(b.axis, "out of range");
    return;
  }
  for (std::int64_t i = 0; i < length; ++i) tie_at(a.axis, a.start + i * a.step, b.axis, b.start + i * b.step);
}

void Ties::tie_digit(Axis big, Axis small, std::int64_t stride) {
  if (mismatch(big, small)) return;
  if (stride < 1 || *size(big) % *size(small) != 0) {
    fix(big, "sizes do not match");
    fix(small, "sizes do not match");
    return;
  }
  if (count(small) == 0) return;
  for (std::int64_t i = 0; i < *size(big); ++i) tie_at(big, i, small, i / stride % *size(small));
}

void Ties::tie_blocks(Axis axis, std::int64_t block) {
  assert(block > 0);
  for (std::int64_t i = 0; i < count(axis); ++i) tie_at(axis, i, axis, i / block * block);
}

void Ties::tie_positions(Axis axis, std::int64_t block) {
  assert(block > 0);
  for (std::int64_t i = 0; i < count(axis); ++i) tie_at(axis, i, axis, i % block);
}

void Ties::tie_at(Axis a, std::int64_t i, Axis b, std::int64_t j) {
  const bool has_a = i >= 0 && i < count(a), has_b = j >= 0 && j < count(b);
  if (has_a && has_b) unite(atom(a, i), atom(b, j));
  // The only index of an axis cannot go; what stands and falls with it neither.
  if (has_a != has_b) has_a ? fix_at(a, i, "tied to an axis of one") : fix_at(b, j, "tied to an axis of one");
}

void Ties::tie_factors(std::span<const Factor> factors) {
  const auto active = products_.activity(factors);
  if (!products_.decided()) return;
  for (std::size_t k = 0; k < factors.size(); ++k) {
    const Factor& factor = factors[k];
    const auto& [before, after] = std::pair(factor.before, factor.after);
    if (!active[k].both()) {
      const std::string_view why = "another factor of the reshaped axis is cut";
      if (active[k].before) fix(before.axis, why);
      if (active[k].after) fix(after.axis, why);
      continue;
    }
    const auto joined = [&](const Factor::Side& side, std::int64_t i) {
      tie_at(side.axis, i, before.axis, i / side.stride % factor.size * before.stride);
    };
    for (std::int64_t i = 0; i < count(before.axis); ++i) joined(before, i);
    for (std::int64_t i = 0; i < count(after.axis); ++i) joined(after, i);
  }
}

std::uint32_t Ties::add_reason(std::string_view text) {
  if (reasons_.back().node != node_ || reasons_.back().text != text) reasons_.push_back({node_, std::string(text)});
  return static_cast<std::uint32_t>(reasons_.size() - 1);
}

void Ties::fix(Axis axis, std::string_view reason) {
  if (count(axis) == 0) return;
  const std::uint32_t number = add_reason(reason);
  for (std::uint32_t i = 0; i < count(axis); ++i) {
    atoms_.unite(atom(axis, i), Atoms::kFixed);
    std::uint32_t& known = reason_of_[atom(axis, i)];
    if (known == 0) known = number;
  }
}

void Ties::fix_at(Axis axis, std::int64_t index, std::string_view reason) {
  if (index < 0 || index >= count(axis)) return;
  atoms_.unite(atom(axis, index), Atoms::kFixed);
  std::uint32_t& known = reason_of_[atom(axis, index)];
  if (known == 0) known = add_reason(reason);
}

void Ties::fix_operand(Operand operand, std::string_view reason) {
  for (std::int64_t i = 0; i < rank(operand).value_or(0); ++i) fix(axis(operand, i), reason);
}

void Ties::fix_all(std::string_view reason) {
  for (const Operand operand : scope_.nodes[node_].in) fix_operand(operand, reason);
  for (const Operand operand : scope_.nodes[node_].out) fix_operand(operand, reason);
}

void Ties::approximate(Axis axis, std::string_view reason) {
  if (!options_.allow_normalized) return fix(axis, reason);
  if (count(axis) == 0) return;
  const std::uint32_t number = add_reason(reason);
  for (std::uint32_t i = 0; i < count(axis); ++i) approximate_of_[atom(axis, i)] = number;
}

void Ties::role(Axis axis, AxisRole role) {
  if (axis == kNone) return;
  roles_[axis] = role;
  if (role != AxisRole::produces || !options_.refusal) return;
  std::optional<std::string>& refusal = refusals_[node_];
  if (!refusal) refusal = options_.refusal(node());
  if (!refusal->empty()) fix(axis, *refusal);
}

void Ties::origin(Axis axis, AxisOrigin origin) {
  if (axis != kNone) origins_[axis] = static_cast<std::uint8_t>(origins_[axis] | origin);
}

}  // namespace onnxpress
