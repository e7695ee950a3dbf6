// What a model costs once groups have lost units, before anything is cut: multiply-accumulates and parameters.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "depend/dependency.h"
#include "ir/model.h"

namespace onnxpress {

// A group and the scope it is in. Groups of one scope own different indices.
struct ScopedGroup {
  const Graph* scope = nullptr;
  const UnitGroup* group = nullptr;
};

class PlanCost {
 public:
  PlanCost(const Model& model, const std::vector<ScopedGroup>& groups);

  // Of the whole model when of each group so many units are left. Nodes whose shapes are not known count 0.
  std::uint64_t macs(std::span<const std::size_t> kept) const;
  // Elements of float and quantized constants, as the report counts them. Readers of a shared constant that lose
  // different groups get copies of their own, which count.
  std::uint64_t parameters(std::span<const std::size_t> kept) const;

 private:
  // What an axis loses with every unit of a group.
  struct AxisLoss {
    std::size_t axis = 0, group = 0, per_unit = 1;
    auto operator<=>(const AxisLoss&) const = default;
  };
  using Losses = std::vector<AxisLoss>;
  struct NodeCost {
    Node node;
    std::vector<Losses> inputs, outputs;  // by slot
  };
  struct Constant {
    Dims dims;
    std::vector<Losses> readers;  // each distinct way to be cut
  };
  Dims shrunk(Dims dims, const Losses& losses, std::span<const std::size_t> kept) const;
  void add_node(const Node& node, const std::map<TensorRef, Losses>& losses);
  void add_constants(const Model& model, const std::map<const Graph*, std::map<TensorRef, Losses>>& losses);

  std::vector<std::size_t> units_;  // of each group
  std::uint64_t fixed_macs_ = 0, fixed_parameters_ = 0;
  std::vector<NodeCost> nodes_;
  std::vector<Constant> constants_;
};

// Bytes that the constants of a model take in a file, names included: what pruning must not increase.
std::uint64_t constant_bytes(const Model& model);

}  // namespace onnxpress
