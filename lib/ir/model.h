// The model in memory: small handles over onnx::ModelProto. The proto is the only truth; the index (producers, uses,
// shapes) is a cache that is rebuilt after a commit, never maintained. No protobuf header is needed to use this one.
//
// Ownership: Model owns everything. Node, Initializer and Graph* stay valid until the element they name is removed
// by Rewriter::commit() (a node's address never changes); spans returned by Graph stay valid until the next commit.
// Thread-safety: const reads may run in parallel once the index exists (Model::index()); mutation is serial.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/result.h"
#include "ir/tensor_store.h"
#include "num/tensor.h"
#include "num/value_type.h"

namespace onnx {
class ModelProto;
class GraphProto;
class FunctionProto;
class NodeProto;
class AttributeProto;
class TensorProto;
}  // namespace onnx

namespace onnxpress {

class Graph;
class Model;

// What kind of attribute a node carries, as a value. Subgraphs stay in the proto.
using AttributeValue = std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>, std::vector<float>,
                                    std::vector<std::string>, Tensor>;

// A node of a graph. Copyable handle; two handles are equal when they name the same NodeProto.
class Node {
 public:
  Node() = default;
  Node(onnx::NodeProto* proto, Graph* graph) : proto_(proto), graph_(graph) {}

  std::string_view name() const;
  std::string_view op() const;
  std::string_view domain() const;  // "" for ai.onnx, also when spelled "ai.onnx"
  // op() in the default domain? Ops of other domains never match.
  bool is(std::string_view op) const;
  // For messages and selectors: the node's name, or "Conv->output" when it has none.
  std::string label() const;

  std::size_t input_count() const;
  std::size_t output_count() const;
  std::string_view input(std::size_t i) const;   // "" when absent or omitted
  std::string_view output(std::size_t i) const;  // "" when absent or omitted
  std::vector<std::string> inputs() const;
  std::vector<std::string> outputs() const;

  bool has_attr(std::string_view key) const;
  std::vector<std::string> attr_names() const;
  std::int64_t attr_int(std::string_view key, std::int64_t fallback) const;
  float attr_float(std::string_view key, float fallback) const;
  std::string attr_string(std::string_view key, std::string_view fallback) const;
  std::vector<std::int64_t> attr_ints(std::string_view key, std::vector<std::int64_t> fallback = {}) const;
  std::vector<float> attr_floats(std::string_view key, std::vector<float> fallback = {}) const;
  Result<std::optional<Tensor>> attr_tensor(std::string_view key) const;
  // Attributes without subgraphs, tensors included: what add_node() takes, to rebuild a node in another form.
  Result<std::vector<std::pair<std::string, AttributeValue>>> attributes() const;
  bool has_subgraph() const;
  std::vector<Graph*> subgraphs() const;

  Graph& graph() const { return *graph_; }
  onnx::NodeProto* proto() const { return proto_; }
  explicit operator bool() const { return proto_ != nullptr; }
  bool operator==(const Node&) const = default;

 private:
  onnx::NodeProto* proto_ = nullptr;
  Graph* graph_ = nullptr;
};

// A dense initializer. Its bytes may be on disk: read() brings them in for as long as the Tensor lives.
class Initializer {
 public:
  Initializer() = default;
  Initializer(onnx::TensorProto* proto, Graph* graph) : proto_(proto), graph_(graph) {}
  std::string_view name() const;
  DType dtype() const;
  Dims dims() const;
  std::uint64_t size() const;   // elements
  std::uint64_t bytes() const;  // bytes of the payload
  // As dense row-major bytes, whichever field the file used (raw_data, *_data, external).
  Result<Tensor> read() const;
  Graph& graph() const { return *graph_; }
  onnx::TensorProto* proto() const { return proto_; }
  explicit operator bool() const { return proto_ != nullptr; }
  bool operator==(const Initializer&) const = default;

 private:
  onnx::TensorProto* proto_ = nullptr;
  Graph* graph_ = nullptr;
};

// One read of a value. captured: by a node inside a nested body of the scope that defines the value.
// `node` is empty when a nested body hands the value out as its own output.
struct Use {
  Node node;
  std::size_t slot = 0;
  bool captured = false;
};

// One scope: the main graph, a body of If/Loop/Scan, or a model-local function.
class Graph {
 public:
  enum class Kind { main, body, function };
  Kind kind() const { return kind_; }
  std::string name() const;
  Model& model() const { return *model_; }
  Graph* parent() const { return parent_; }   // null for main and functions
  Node owner() const { return owner_; }       // the If/Loop/Scan node; empty for main and functions

  const std::vector<Node>& nodes() const;
  std::vector<Initializer> initializers() const;
  std::vector<std::string> inputs() const;   // declared inputs, those that shadow an initializer included
  std::vector<std::string> outputs() const;
  std::vector<std::string> sparse_initializers() const;

  // In this scope only.
  Initializer initializer(std::string_view name) const;  // empty handle when there is none
  Node producer(std::string_view value) const;           // empty handle when no node of this scope makes it
  const std::vector<Use>& uses(std::string_view value) const;
  bool is_input(std::string_view value) const;
  bool is_output(std::string_view value) const;
  bool defines(std::string_view value) const;  // input, initializer (sparse too) or node output of this scope
  // The scope that defines `value` as seen from here, walking outwards; null when undefined.
  Graph* scope_of(std::string_view value) const;

  // A value known before the model runs: an initializer that callers cannot override (not also an input),
  // or the output of a Constant node, looked up through outer scopes. Empty Tensor when it is not constant.
  bool is_constant(std::string_view value) const;
  // Dtype and dims without reading bytes; nullopt when not constant.
  std::optional<std::pair<DType, Dims>> constant_type(std::string_view value) const;
  Result<std::optional<Tensor>> constant(std::string_view value) const;
  // The initializer behind a constant, through outer scopes; empty when the value is a Constant node or no constant.
  Initializer constant_initializer(std::string_view value) const;

  // Declared or inferred (onnx shape inference, run once per commit). Unknown parts stay empty.
  ValueType type(std::string_view value) const;

  onnx::GraphProto* proto() const { return proto_; }              // null for functions
  onnx::FunctionProto* function_proto() const { return function_; }  // null otherwise

 private:
  friend class Model;
  friend class Rewriter;
  struct Index;
  Graph() = default;
  const Index& index() const;

  Kind kind_ = Kind::main;
  Model* model_ = nullptr;
  Graph* parent_ = nullptr;
  Node owner_;
  onnx::GraphProto* proto_ = nullptr;
  onnx::FunctionProto* function_ = nullptr;
  std::shared_ptr<Index> index_;
};

class Model {
 public:
  Model();
  // Takes a proto whose large payloads are in `store` already (see io/load.h), or none are.
  Model(std::unique_ptr<onnx::ModelProto> proto, std::shared_ptr<TensorStore> store);
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  Graph& main() const;
  // Every scope: main first, then bodies in pre-order, then functions with their bodies.
  const std::vector<Graph*>& graphs() const;

  // The opset the model imports of a domain ("" = ai.onnx); 0 when it imports none (IR < 3 files mean opset 1).
  std::int64_t opset(std::string_view domain = "") const;
  void set_opset(std::string_view domain, std::int64_t version);
  std::int64_t ir_version() const;
  void set_ir_version(std::int64_t version);
  std::string metadata(std::string_view key) const;
  void set_metadata(std::string_view key, std::string_view value);
  void remove_metadata(std::string_view key);

  // Hash of everything: proto fields and tensor bytes. Two models with one fingerprint save to the same bytes.
  Result<std::string> fingerprint() const;
  // An independent copy; payloads on disk are shared read-only.
  Model clone() const;

  // Builds the index and the types now, so that const reads may then run in parallel.
  void index() const;
  // Call after editing the proto directly (io and tests only); Rewriter does it by itself.
  void invalidate();

  onnx::ModelProto& proto() const { return *proto_; }
  TensorStore& store() const { return *store_; }
  const std::shared_ptr<TensorStore>& shared_store() const { return store_; }

 private:
  friend class Graph;
  friend class Rewriter;
  struct Cache;
  void build_index() const;
  void build_types() const;
  void collect(Graph* graph) const;

  std::unique_ptr<onnx::ModelProto> proto_;
  std::shared_ptr<TensorStore> store_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace onnxpress
