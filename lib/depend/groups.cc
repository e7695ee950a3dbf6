// Units and groups from the classes: classes with the same footprint compete.
#include <algorithm>
#include <array>
#include <cassert>
#include <unordered_map>

#include "depend/engine.h"

namespace onnxpress {
namespace {

// How many indices of which axis a unit owns.
struct Part {
  Axis axis = kNone;
  std::uint32_t count = 0;
  bool operator==(const Part&) const = default;
};
using Footprint = std::vector<Part>;

struct Unit {
  Footprint footprint;
  bool produced = false;  // a weight makes it
  std::uint32_t approximate = 0;
  std::uint8_t origins = 0;
};

struct Classes {
  std::vector<std::uint32_t> unit_of;  // by root atom, kNone when it is none
  std::vector<Unit> units;
};

// A weight, or what becomes one: codes that are dequantized play its part.
bool holds_units(const Scope& scope, const Ties& ties, Axis axis) {
  return scope.tensors[scope.axes[axis].tensor].ref.is_constant() && ties.roles()[axis] == AxisRole::produces;
}

Classes classify(const Scope& scope, const Ties& ties) {
  Classes classes;
  classes.unit_of.assign(scope.atom_count, kNone);
  for (Axis axis = 0; axis < scope.axes.size(); ++axis) {
    const ScopeAxis& entry = scope.axes[axis];
    const bool produces = holds_units(scope, ties, axis);
    for (std::uint32_t i = 0; i < entry.count; ++i) {
      const Atoms::Atom root = ties.atoms().root(entry.first + i);
      if (root == Atoms::kFixed) continue;
      std::uint32_t& number = classes.unit_of[root];
      if (number == kNone) {
        number = static_cast<std::uint32_t>(classes.units.size());
        classes.units.emplace_back();
      }
      Unit& unit = classes.units[number];
      if (unit.footprint.empty() || unit.footprint.back().axis != axis) unit.footprint.push_back({axis, 0});
      ++unit.footprint.back().count;
      unit.produced = unit.produced || produces;
      unit.origins = static_cast<std::uint8_t>(unit.origins | ties.origins()[axis]);
      const std::uint32_t approximate = ties.approximate_of()[entry.first + i];
      if (approximate != 0) unit.approximate = approximate;
    }
  }
  return classes;
}

std::size_t hash_of(const Footprint& footprint) {
  std::size_t hash = footprint.size();
  for (const Part& part : footprint)
    hash = (hash ^ ((std::size_t{part.axis} << 20) + part.count)) * 0x9E3779B97F4A7C15ULL;
  return hash;
}

UnitKind kind_of(std::uint8_t origins, std::size_t width) {
  if ((origins & from_softmax) != 0 && width > 1) return UnitKind::heads;
  if ((origins & from_recurrent) != 0) return UnitKind::hidden;
  if ((origins & from_conv) != 0) return UnitKind::channels;
  if ((origins & from_matmul) != 0) return UnitKind::neurons;
  return UnitKind::other;
}

// The members of the units with this footprint, constants first; `units` are numbers of classes.
UnitGroup describe(const Scope& scope, const Ties& ties, const Classes& classes,
                   const std::vector<std::uint32_t>& units) {
  UnitGroup group;
  group.units = units.size();
  std::uint8_t origins = 0;
  std::unordered_map<std::uint32_t, std::size_t> place;  // of a class among the units
  for (std::size_t i = 0; i < units.size(); ++i) {
    const Unit& unit = classes.units[units[i]];
    place[units[i]] = i;
    origins = static_cast<std::uint8_t>(origins | unit.origins);
    if (unit.approximate != 0 && group.approximate.empty()) group.approximate = ties.reasons()[unit.approximate].text;
  }
  std::uint32_t maker = kNone;
  for (const bool constants : {true, false})
    for (const Part& part : classes.units[units[0]].footprint) {
      const ScopeAxis& axis = scope.axes[part.axis];
      const ScopeTensor& tensor = scope.tensors[axis.tensor];
      if (tensor.ref.is_constant() != constants) continue;
      GroupMember member{tensor.ref, axis.axis, constants ? ties.roles()[part.axis] : AxisRole::value, part.count, {}};
      member.indices.resize(units.size() * part.count);
      std::vector<std::uint32_t> filled(units.size(), 0);
      for (std::uint32_t i = 0; i < axis.count; ++i) {
        const Atoms::Atom root = ties.atoms().root(axis.first + i);
        const auto found = root == Atoms::kFixed ? place.end() : place.find(classes.unit_of[root]);
        if (found == place.end()) continue;
        member.indices[found->second * part.count + filled[found->second]++] = i;
      }
      if (holds_units(scope, ties, part.axis)) {
        group.width = std::max<std::size_t>(group.width, part.count);
        maker = std::min(maker, tensor.node);
      }
      group.members.push_back(std::move(member));
    }
  assert(maker != kNone);
  group.name = scope.nodes[maker].node.label();
  group.kind = kind_of(origins, group.width);
  return group;
}

}  // namespace

Groups extract_groups(const Scope& scope, const Ties& ties) {
  const Classes classes = classify(scope, ties);
  std::vector<std::vector<std::uint32_t>> units;  // by group
  std::unordered_map<std::size_t, std::vector<std::size_t>> by_hash;
  for (std::uint32_t i = 0; i < classes.units.size(); ++i) {
    const Footprint& footprint = classes.units[i].footprint;
    if (!classes.units[i].produced) continue;
    auto& candidates = by_hash[hash_of(footprint)];
    const auto same = std::ranges::find_if(
        candidates, [&](std::size_t group) { return classes.units[units[group][0]].footprint == footprint; });
    if (same != candidates.end()) {
      units[*same].push_back(i);
    } else {
      candidates.push_back(units.size());
      units.push_back({i});
    }
  }
  Groups result;
  std::vector<std::uint32_t> group_of_unit(classes.units.size(), kNone);
  for (const auto& group : units) {
    for (const std::uint32_t unit : group) group_of_unit[unit] = static_cast<std::uint32_t>(result.groups.size());
    result.groups.push_back(describe(scope, ties, classes, group));
  }
  result.group_of.assign(scope.atom_count, kNone);
  for (Atoms::Atom atom = 0; atom < scope.atom_count; ++atom)
    if (classes.unit_of[atom] != kNone) result.group_of[atom] = group_of_unit[classes.unit_of[atom]];
  return result;
}

}  // namespace onnxpress
