// Which factor of an axis is cut when a Reshape joins or splits axes.
//
//   [N, 12, 64] <-> [N, 768]      channel a*64+b goes with head a (factor 12 active), or with position b (64 active)
//
// Both at once would not leave a rectangle, so the indices of the joined axis that share the active digit are one, and
// the axes of the other factors are fixed. The first analysis runs without any such choice and shows which factors are
// fixed anyway (selects of q, k and v, image rows); then the first that is not is active. Reshapes whose factors are
// tied to each other (q, k and v; the two around a channel shuffle) choose the same. Where everything ends
// fixed, or in a single unit, the next factor is tried in the next round.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "depend/atoms.h"
#include "depend/scope.h"

namespace onnxpress {

// One factor of the common refinement of both shapes: index i of the axis has digit i / stride % size.
struct Factor {
  std::int64_t size = 0;
  struct Side {
    Axis axis = kNone;
    std::int64_t stride = 1;
    bool alone = false;  // the axis is this factor and no other
  };
  Side before, after;
};

class Products {
 public:
  void restart() { next_ = 0; }
  bool decided() const { return decided_; }
  // The axes of these factors that have more than one: registers them, in the order rules name them. Returns by factor
  // whether it is active on both sides.
  struct Activity {
    bool before = false, after = false;
    bool both() const { return before && after; }
  };
  std::vector<Activity> activity(std::span<const Factor> factors);

  // After the undecided analysis: looks which factors can be active, and decides.
  void decide(const Scope& scope, Atoms& atoms);
  // After a decided one: rejects what left nothing to choose from. True when a choice changed.
  bool revise(const Scope& scope, Atoms& atoms);

 private:
  using Key = std::uint64_t;
  struct Candidate {
    Axis other = kNone;  // the axis that is this factor alone, on the other side
    Key key = 0;         // equal for factors that are tied to each other
    bool dead = false;
  };
  struct Choice {
    Axis axis = kNone;
    std::vector<Candidate> factors;
    std::size_t active = 0;
  };
  void choose();
  std::size_t pick(const Choice& choice, const std::set<Key>& chosen) const;

  std::vector<Choice> choices_;
  std::size_t next_ = 0;  // of the choices, in this round
  bool decided_ = false;
  std::set<Key> rejected_;
};

}  // namespace onnxpress
