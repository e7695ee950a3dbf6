// One scope of a model as a graph that can be rewritten step by step the way a runtime's optimizer does it, without
// touching the model: what the prediction of fusions (quant/fusion.h) works on. Only names, ops and small constants
// move; nothing is computed.
#pragma once

#include <cstddef>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

class RuntimeGraph {
 public:
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  struct Item {
    std::size_t origin = kNone;  // index in Graph::nodes() of the node whose name this one carries
    Node source = {};            // for its attributes; empty for what the runtime adds
    std::string op = {}, domain = {};
    std::vector<std::string> inputs = {}, outputs = {};
    bool alive = true;

    bool is(std::string_view name) const { return domain.empty() && op == name; }
    const std::string& input(std::size_t slot) const;  // "" when absent
    std::size_t present_inputs() const;                // inputs that are there
  };

  // A read of a value: by input `slot` of an item, or by a body of it (`captured`).
  struct Reader {
    std::size_t item = 0, slot = 0;
    bool captured = false;
    auto operator<=>(const Reader&) const = default;
  };

  explicit RuntimeGraph(const Graph& graph);

  const Graph& graph() const { return graph_; }
  Item& at(std::size_t item) { return items_[item]; }
  const Item& at(std::size_t item) const { return items_[item]; }
  std::size_t size() const { return items_.size(); }
  std::vector<std::size_t> order() const;  // living items, producers before readers, as the runtime walks them

  std::size_t producer(const std::string& value) const;  // kNone when it is an input or a constant
  const std::set<Reader>& readers(const std::string& value) const;
  bool is_output(const std::string& value) const { return graph_.is_output(value); }
  // All its outputs together.
  std::size_t edges(std::size_t item) const;
  bool makes_output(std::size_t item) const;
  // Exactly one reader, and no output of the graph.
  bool single(std::size_t item) const { return edges(item) == 1 && !makes_output(item); }
  std::size_t only_reader(std::size_t item) const;  // asserts that there is one edge
  std::size_t reader_of(const std::string& value) const { return readers(value).begin()->item; }  // the first

  std::size_t add(Item item);
  // `why` is kept for the node whose name the item carries.
  void remove(std::size_t item, std::string why);
  void set_input(std::size_t item, std::size_t slot, const std::string& value);
  void set_output(std::size_t item, std::size_t slot, const std::string& value);
  // Everyone who reads `from`, bodies left out, reads `to`.
  void move_readers(const std::string& from, const std::string& to);
  std::string fresh(std::string_view base);

  // Constants: of the model, or made by the runtime.
  bool is_constant(const std::string& value) const;
  void make_constant(const std::string& value, DType dtype, std::optional<Dims> dims, std::optional<Tensor> bytes = {});
  std::optional<std::pair<DType, std::optional<Dims>>> constant_type(const std::string& value) const;
  std::optional<Tensor> scalar(const std::string& value) const;  // a constant of one element
  bool is_scalar(const std::string& value) const;                // by its shape: one element, rank 0 or 1

  ValueType type(const std::string& value) const;
  void set_type(const std::string& value, ValueType type) { types_[value] = std::move(type); }

  std::int64_t opset(std::string_view domain = "") const { return graph_.model().opset(domain); }

  // What is told of a node of the model in the end, by its index.
  std::map<std::size_t, std::string> gone;      // why it is no longer there
  std::set<std::size_t> twins;                  // of those: computed once together with an equal node
  std::map<std::size_t, std::string> blockers;  // what kept it from its integer form

 private:
  struct Constant {
    DType dtype = DType::undefined;
    std::optional<Dims> dims;
    std::optional<Tensor> bytes;
  };
  void link(std::size_t item);
  void unlink(std::size_t item);

  const Graph& graph_;
  std::deque<Item> items_;
  std::vector<std::vector<std::string>> captured_;  // by item: what its bodies read from here
  std::unordered_map<std::string, std::size_t> producers_;
  std::unordered_map<std::string, std::set<Reader>> readers_;
  std::unordered_map<std::string, Constant> constants_;
  std::unordered_map<std::string, ValueType> types_;
  std::size_t fresh_ = 0;
};

}  // namespace onnxpress
