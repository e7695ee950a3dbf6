#include "depend/axes.h"

#include <cassert>

namespace onnxpress {

std::string reader_key(const Node& node) {
  for (std::string& output : node.outputs())
    if (!output.empty()) return std::move(output);
  return node.label();
}

TensorRef input_ref(const Node& node, std::size_t slot) {
  TensorRef ref{std::string(node.input(slot)), {}, 0};
  if (ref.value.empty() || !node.graph().is_constant(ref.value)) return ref;
  ref.reader = reader_key(node);
  ref.slot = slot;
  return ref;
}

TensorRef output_ref(const Node& node, std::size_t slot) { return {std::string(node.output(slot)), {}, 0}; }

const Indices* KeptAxes::find(const TensorRef& tensor, std::size_t axis) const {
  const auto found = kept_.find({tensor, axis});
  return found == kept_.end() ? nullptr : &found->second;
}

bool KeptAxes::touches(const TensorRef& tensor) const {
  const auto from = kept_.lower_bound({tensor, 0});
  return from != kept_.end() && from->first.first == tensor;
}

Dims KeptAxes::dims_of(const TensorRef& tensor, Dims dims) const {
  for (std::size_t axis = 0; axis < dims.size(); ++axis)
    if (const Indices* kept = find(tensor, axis)) dims[axis] = static_cast<std::int64_t>(kept->size());
  return dims;
}

KeptAxes KeptAxes::then(const KeptAxes& later) const {
  KeptAxes both = *this;
  for (const auto& [axis, kept] : later.kept_) {
    const Indices* before = find(axis.first, axis.second);
    Indices original = kept;
    if (before != nullptr)
      for (std::uint32_t& index : original) {
        assert(index < before->size());
        index = (*before)[index];
      }
    both.set(axis.first, axis.second, std::move(original));
  }
  return both;
}

}  // namespace onnxpress
