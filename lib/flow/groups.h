// onnxpress groups: what could be pruned from a network, and what stands in the way.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "pass/pipeline.h"

namespace onnxpress {

struct GroupsRequest {
  std::string model;
  Pipeline pipeline;        // run first: what will run before the pruning pass
  std::string explain;      // a node by name; "" = the list
  bool allow_normalized = false;
};

struct GroupRow {
  std::string name, kind, scope;  // scope: "" in the main graph, else the node whose body it is in
  std::string approximate;
  std::size_t units = 0, width = 0;
  std::uint64_t parameters = 0;  // that go when all units go, and so
  std::uint64_t macs = 0;        // do these multiply-accumulates, unless
  bool macs_known = true;        // the shapes around a node are not known
};

struct BlockedRow {
  std::string node, op, scope, weight;
  std::size_t axis = 0, size = 0, blocked = 0;
  std::string reason;
  std::vector<std::string> path;
};

struct GroupsResult {
  std::string model;
  std::vector<GroupRow> groups;
  std::vector<BlockedRow> blocked;
  std::uint64_t parameters = 0, macs = 0;  // of the model
  std::string node;                        // that was to be explained, and
  std::vector<std::string> explanation;    // what there is to say, one line each
};

// Errors: usage (no such node), those of load_model() and of the pipeline.
Result<GroupsResult> find_groups(const GroupsRequest& request);

std::string groups_text(const GroupsResult& result);
std::string groups_json(const GroupsResult& result);

}  // namespace onnxpress
