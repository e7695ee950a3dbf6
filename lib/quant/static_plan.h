// Which nodes of a graph run in integers and which values cross between them as codes. No number is computed here.
//
// Every node with an integer form may take it or not; a value between an integer and a float node has to be converted.
// The choice that costs least in all is a minimum cut (project selection): vertices are nodes, the source's side is
// integer, and the cut edges are the times of the nodes and of the conversions.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ir/model.h"
#include "pass/pass.h"
#include "quant/static_cost.h"
#include "quant/static_cut.h"
#include "quant/static_roles.h"
#include "quant/static_shapes.h"

namespace onnxpress {

enum class Placement {
  cost,  // integers where they pay by the cost model of the target; `all` where it has none
  all,   // every node with an integer kernel
};

struct StaticRules {
  Target target = Target::automatic;
  Placement placement = Placement::cost;
  bool attention = false;  // products of two activations too
};

struct StaticNode {
  Node node;
  StaticRole role = StaticRole::none;
  std::vector<std::size_t> data_slots = {};      // activations read as codes
  std::vector<std::size_t> constant_slots = {};  // constants read as codes
  std::vector<std::string> outputs = {};  // values quantized behind it; where a Relu or Clip is absorbed, that one's
  std::optional<Absorbed> absorbed = {};
  bool quantize_output = false;  // Conv must have it; Gemm and MatMul only when an integer node reads it
};

struct StaticLeft {
  Node node;
  std::string reason;
  bool too_slow = false;  // it could be integer, but that does not pay
};

struct StaticPlan {
  Graph* graph = nullptr;
  std::vector<StaticNode> nodes = {};                // integer nodes, in graph order
  std::vector<std::string> values = {};              // to be quantized, in order of first appearance
  std::map<std::string, std::string> range_of = {};  // value -> the value whose range and parameters it takes
  std::vector<StaticLeft> left = {};                 // nodes that stay float although they need not
  // The value that `value` takes its parameters from: itself unless data movement lies between.
  std::string root(const std::string& value) const;
};

// Plans one scope (the main graph or a body), as often as asked with more and more that must stay float.
class StaticPlanner {
 public:
  // Nodes that cannot be integer whatever their neighbours do are journaled here, once.
  StaticPlanner(Graph& graph, const StaticRules& rules, PassContext& context);

  // What has to be known about types before plan().
  std::vector<SeenTypes::Read> reads() const;
  void set_types(const SeenTypes& types);

  // Candidates.
  const std::vector<StaticNode>& units() const { return units_; }
  bool knows(const Node& node) const { return std::ranges::contains(units_, node, &StaticNode::node); }
  // The node stays float ("": without a word in the journal); or integer, whatever it costs. The value is never made of
  // codes, nor what merely moves it around.
  void keep_float(const Node& node, std::string reason) { kept_[node.proto()] = std::move(reason); }
  void keep_float(const std::string& value, const std::string& reason);
  void force(const Node& node) { forced_.insert(node.proto()); }

  StaticPlan plan() const;
  Graph& graph() const { return *graph_; }

 private:
  struct Network;  // the units as the cut sees them
  void consider(const Node& node, PassContext& context);
  // Why the unit cannot be integer now; nothing when it can.
  std::optional<std::string> obstacle(const StaticNode& unit) const;
  Network network() const;
  CutNode times_of(const StaticNode& unit) const;
  CutValue conversions_of(const std::string& value, bool float_reader) const;
  std::string why_float(const Network& network, const std::vector<bool>& integer, std::size_t unit) const;
  std::vector<std::size_t> surrounded(const Network& network, const std::vector<bool>& integer) const;
  StaticPlan finish(std::vector<StaticNode> chosen) const;
  StaticPlan plan_inputs() const;

  Graph* graph_;
  StaticRules rules_;
  std::optional<CostModel> costs_;  // empty: placement all
  std::vector<StaticNode> units_;   // candidates, in graph order
  const SeenTypes* types_ = nullptr;
  std::unordered_map<const onnx::NodeProto*, std::string> kept_;
  std::unordered_set<const onnx::NodeProto*> forced_;
  std::map<std::string, std::string> unfit_;
  std::unordered_set<std::string> warned_;
};

}  // namespace onnxpress
