#include <cassert>

#include "depend/dependency.h"

namespace onnxpress {
namespace {

// What is gone from each axis, as flags by index.
using Gone = std::map<KeptAxes::Axis, std::vector<bool>>;

void mark(const UnitGroup& group, const Indices& units, Gone& gone) {
  for (const GroupMember& member : group.members) {
    std::vector<bool>& flags = gone[{member.tensor, member.axis}];
    for (const std::uint32_t unit : units) {
      assert(unit < group.units);
      for (std::size_t k = 0; k < member.per_unit; ++k) {
        const std::uint32_t index = member.indices[unit * member.per_unit + k];
        if (flags.size() <= index) flags.resize(index + 1);
        flags[index] = true;
      }
    }
  }
}

}  // namespace

KeptAxes kept_axes(const DependencyGraph& dependencies, const Removal& removal) {
  Gone gone;
  for (std::size_t i = 0; i < removal.size(); ++i)
    if (!removal[i].empty()) mark(dependencies.groups()[i], removal[i], gone);
  KeptAxes result;
  for (auto& [axis, flags] : gone) {
    const std::size_t size = dependencies.size(axis.first, axis.second);
    flags.resize(size);
    Indices kept;
    for (std::uint32_t index = 0; index < size; ++index)
      if (!flags[index]) kept.push_back(index);
    result.set(axis.first, axis.second, std::move(kept));
  }
  return result;
}

}  // namespace onnxpress
