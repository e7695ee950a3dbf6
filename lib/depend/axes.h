// Names for the axes of tensors, and what pruning leaves of them.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

// A tensor of one scope: a value that is computed (or a graph input), or a constant as one node reads it. Every reader
// has a constant for itself: exporters store byte-equal initializers once, which ties nothing together.
struct TensorRef {
  std::string value;
  std::string reader;    // of a constant: reader_key() of the node; "" for a computed value
  std::size_t slot = 0;  // of a constant: the input of the reader
  auto operator<=>(const TensorRef&) const = default;

  bool is_constant() const { return !reader.empty(); }
};

// A node by its first output that has a name: unique in its scope, and the same in all versions of a model.
std::string reader_key(const Node& node);
// Input (or output) `slot` of the node; its `value` is "" when it is absent.
TensorRef input_ref(const Node& node, std::size_t slot);
TensorRef output_ref(const Node& node, std::size_t slot);

using Indices = std::vector<std::uint32_t>;  // of one axis, ascending

// For every axis that lost something, the indices it keeps. Axes that are not listed are whole.
class KeptAxes {
 public:
  using Axis = std::pair<TensorRef, std::size_t>;

  void set(const TensorRef& tensor, std::size_t axis, Indices kept) { kept_[{tensor, axis}] = std::move(kept); }
  const Indices* find(const TensorRef& tensor, std::size_t axis) const;  // null when the axis is whole
  bool touches(const TensorRef& tensor) const;
  bool empty() const { return kept_.empty(); }
  const std::map<Axis, Indices>& all() const { return kept_; }

  // The dims once the axes are cut.
  Dims dims_of(const TensorRef& tensor, Dims dims) const;
  // What is left of the original after this, and then `later` (which counts in indices of what this leaves).
  KeptAxes then(const KeptAxes& later) const;

 private:
  std::map<Axis, Indices> kept_;
};

}  // namespace onnxpress
