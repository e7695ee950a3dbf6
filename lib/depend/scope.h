// The tensors, axes and atoms of one scope, numbered once so that no rule handles a name.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "depend/atoms.h"
#include "depend/axes.h"
#include "depend/sizes.h"
#include "ir/model.h"

namespace onnxpress {

using Operand = std::uint32_t;  // a tensor, by number
using Axis = std::uint32_t;     // an axis of a tensor, by number
inline constexpr std::uint32_t kNone = 0xffffffff;

struct ScopeTensor {
  TensorRef ref;
  DType dtype = DType::undefined;
  bool ranked = false;
  std::uint32_t rank = 0;
  Axis first_axis = 0;         // the others follow
  std::uint32_t node = kNone;  // the reader of a constant, the producer of a value
  bool derived = false;        // a value computed from constants only
  std::string stays;           // why all of it is fixed, whatever reads it: "an input of the graph"
};

struct ScopeAxis {
  Operand tensor = 0;
  std::uint32_t axis = 0;
  std::optional<std::int64_t> size;
  std::string symbol;       // of a free dimension
  Atoms::Atom first = 0;    // the others follow
  std::uint32_t count = 0;  // atoms: the size when it is above 1, else 0
};

struct ScopeNode {
  Node node;
  std::vector<Operand> in, out;  // kNone where there is none
};

struct Scope {
  const Graph* graph = nullptr;
  Sizes sizes;
  std::vector<ScopeTensor> tensors;
  std::vector<ScopeAxis> axes;
  std::vector<ScopeNode> nodes;
  std::map<TensorRef, Operand> by_ref;
  std::size_t atom_count = 1;  // with Atoms::kFixed

  explicit Scope(const Graph& graph);

  Operand find(const TensorRef& ref) const;  // kNone when there is none
  Axis axis(Operand tensor, std::size_t axis) const { return tensors[tensor].first_axis + static_cast<Axis>(axis); }
  Axis axis_of(Atoms::Atom atom) const;
  // "axis 1 of 'features'"
  std::string axis_text(Axis axis) const;

 private:
  Operand add(const TensorRef& ref, std::uint32_t node);
  void add_axes(ScopeTensor& tensor, Operand number);
  void mark_fixed();
  void mark_derived();
};

}  // namespace onnxpress
