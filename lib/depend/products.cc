#include "depend/products.h"

#include <cassert>

namespace onnxpress {
namespace {

bool all_fixed(const Scope& scope, Atoms& atoms, Axis axis) {
  const ScopeAxis& entry = scope.axes[axis];
  for (std::uint32_t i = 0; i < entry.count; ++i)
    if (!atoms.fixed(entry.first + i)) return false;
  return true;
}

// Whether something of the axis could go, and something else stay.
bool leaves_choice(const Scope& scope, Atoms& atoms, Axis axis) {
  const ScopeAxis& entry = scope.axes[axis];
  for (std::uint32_t i = 1; i < entry.count; ++i)
    if (atoms.root(entry.first + i) != atoms.root(entry.first)) return true;
  return false;
}

}  // namespace

std::vector<Products::Activity> Products::activity(std::span<const Factor> factors) {
  std::vector<Activity> result(factors.size());
  const auto side = [&](bool before) {
    const auto of = [&](std::size_t i) -> const Factor::Side& { return before ? factors[i].before : factors[i].after; };
    const auto flag = [&](std::size_t i) -> bool& { return before ? result[i].before : result[i].after; };
    for (std::size_t i = 0; i < factors.size();) {
      if (of(i).alone) {
        flag(i++) = true;
        continue;
      }
      std::size_t end = i;
      while (end < factors.size() && of(end).axis == of(i).axis) ++end;
      if (!decided_) {
        Choice choice{of(i).axis, {}, 0};
        for (std::size_t k = i; k < end; ++k) {
          const Factor::Side& other = before ? factors[k].after : factors[k].before;
          choice.factors.push_back({other.alone ? other.axis : kNone, 0, false});
        }
        choices_.push_back(std::move(choice));
      } else {
        assert(next_ < choices_.size() && choices_[next_].axis == of(i).axis);
        flag(i + choices_[next_++].active) = true;
      }
      i = end;
    }
  };
  side(true);
  side(false);
  return result;
}

void Products::decide(const Scope& scope, Atoms& atoms) {
  Key fresh = scope.atom_count;  // keys of tied factors are atoms
  for (Choice& choice : choices_) {
    for (Candidate& candidate : choice.factors) {
      candidate.key = fresh++;
      if (candidate.other == kNone) continue;
      candidate.dead = all_fixed(scope, atoms, candidate.other);
      if (candidate.dead) continue;
      Atoms::Atom atom = scope.axes[candidate.other].first;
      while (atoms.fixed(atom)) ++atom;
      candidate.key = atoms.root(atom);
    }
  }
  decided_ = true;
  choose();
}

bool Products::revise(const Scope& scope, Atoms& atoms) {
  for (const Choice& choice : choices_)
    if (!leaves_choice(scope, atoms, choice.axis)) rejected_.insert(choice.factors[choice.active].key);
  std::vector<std::size_t> before;
  for (const Choice& choice : choices_) before.push_back(choice.active);
  choose();
  for (std::size_t i = 0; i < choices_.size(); ++i)
    if (choices_[i].active != before[i]) return true;
  return false;
}

void Products::choose() {
  std::set<Key> chosen;
  for (Choice& choice : choices_) {
    choice.active = pick(choice, chosen);
    chosen.insert(choice.factors[choice.active].key);
  }
}

std::size_t Products::pick(const Choice& choice, const std::set<Key>& chosen) const {
  const std::size_t none = choice.factors.size();
  std::size_t first = none, first_alive = none;
  for (std::size_t i = 0; i < choice.factors.size(); ++i) {
    const Candidate& candidate = choice.factors[i];
    if (candidate.dead) continue;
    if (first_alive == none) first_alive = i;
    if (rejected_.contains(candidate.key)) continue;
    if (chosen.contains(candidate.key)) return i;
    if (first == none) first = i;
  }
  if (first != none) return first;
  return first_alive != none ? first_alive : 0;
}

}  // namespace onnxpress
