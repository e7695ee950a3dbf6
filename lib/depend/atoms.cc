#include "depend/atoms.h"

#include <numeric>

namespace onnxpress {

Atoms::Atoms(std::size_t count) : parent_(count) { separate(); }

void Atoms::separate() { std::iota(parent_.begin(), parent_.end(), Atom{0}); }

void Atoms::unite(Atom a, Atom b) {
  a = root(a);
  b = root(b);
  if (a < b) parent_[b] = a;
  if (b < a) parent_[a] = b;
}

}  // namespace onnxpress
