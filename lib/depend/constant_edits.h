// New values for constants, reader by reader: exporters store equal constants once, and after pruning their readers may
// need different ones.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/rewriters.h"

namespace onnxpress {

class ConstantEdits {
 public:
  using Make = std::function<Result<Tensor>(Tensor original)>;

  // For readers in this scope; the constants may come from scopes around it.
  explicit ConstantEdits(Graph& graph) : graph_(graph) {}

  // `reader` gets make(what it reads now) at `slot`. Equal keys mean equal results: they are made and stored once.
  // Of two edits for one place the last counts.
  void set(const Node& reader, std::size_t slot, std::string key, Make make);

  // Makes them, up to 2 x jobs at a time, and hands them to the rewriters. A constant all of whose readers get another
  // value is replaced under its name by the first; others become new initializers. Errors: of `make`, with the label of
  // a reader; unsupported in a function, which holds no initializers.
  Status apply(Rewriters& rewriters, unsigned jobs) const;

 private:
  struct Version {
    std::string key;
    Make make;
    std::vector<Use> readers;
    bool in_place = false;
  };
  struct Constant {
    Graph* scope = nullptr;
    std::string value;
    std::vector<Version> versions;
  };
  // One version of one constant, in order.
  struct Step {
    const Constant* constant = nullptr;
    const Version* version = nullptr;
  };
  bool replaceable(const Constant& constant) const;
  std::vector<Constant> collect() const;
  void store(const Step& step, Tensor value, Rewriters& rewriters) const;

  struct Edit {
    std::string key;
    Make make;
  };
  Graph& graph_;
  std::vector<Use> order_;  // of the first edit of each place
  std::map<std::pair<const void*, std::size_t>, Edit> edits_;
};

}  // namespace onnxpress
