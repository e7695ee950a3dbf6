// Union-find over the indices of axes: which of them stand and fall together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxpress {

class Atoms {
 public:
  using Atom = std::uint32_t;
  static constexpr Atom kFixed = 0;  // what must stay; every class that holds it

  explicit Atoms(std::size_t count);  // `count` atoms with kFixed, all apart
  void separate();

  std::size_t size() const { return parent_.size(); }
  // The smallest atom of its class, so kFixed for everything that is united with it.
  Atom root(Atom atom) {
    while (parent_[atom] != atom) {
      parent_[atom] = parent_[parent_[atom]];
      atom = parent_[atom];
    }
    return atom;
  }
  Atom root(Atom atom) const {
    while (parent_[atom] != atom) atom = parent_[atom];
    return atom;
  }
  bool fixed(Atom atom) const { return root(atom) == kFixed; }
  void unite(Atom a, Atom b);

 private:
  std::vector<Atom> parent_;
};

}  // namespace onnxpress
