// How much each node of a network suffers from quantization: measured, one node at a time.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "quant/meter.h"

namespace onnxpress {

// What identifies a measurement: tables are only ever continued or used under the same key.
struct SensitivityKey {
  std::string model;     // fingerprint of the float model
  std::string data;      // digest of the samples
  std::string settings;  // text of everything else the numbers depend on
  bool operator==(const SensitivityKey&) const = default;
};

struct NodeSensitivity {
  std::string node, op;
  std::vector<std::string> with = {};       // other nodes in the same format: they share its weight
  bool kernel = true;                       // false: it runs in integers only between integer nodes
  std::map<NodeFormat, Effect> alone = {};  // only this node quantized; kernels only
  std::optional<Effect> rest = {};          // all quantized but this one

  std::vector<std::string> labels() const;  // node and with
};

// Several nodes left float together, all others quantized.
struct SkipSet {
  std::vector<std::string> nodes;
  Effect effect;
};

struct SensitivityTable {
  SensitivityKey key;
  std::string samples;                      // what the samples were, for readers
  std::uint64_t float_bytes = 0;            // of all weights
  std::map<NodeFormat, Effect> all = {};    // every node in this format
  std::vector<NodeSensitivity> nodes = {};  // in graph order
  std::vector<SkipSet> skips = {};          // what to leave float first: one node, two, four
  bool complete = false;
};

struct SensitivityRun {
  SensitivityKey key;
  std::string samples;
  const SensitivityTable* known = nullptr;  // of an earlier run under the same key, perhaps interrupted
  // Called after every measurement (last = false) and at the end, also of an interrupted run (last = true).
  std::function<Status(const SensitivityTable& table, bool last)> save = {};
};

// Each unit of the meter in each format of recipe_formats(). The table is the same whether a run was interrupted or
// not, and for any number of threads. Errors: those of Meter.
Result<SensitivityTable> measure_sensitivity(const Model& model, Meter& meter, const SensitivityRun& run);

// Nodes by what leaving them float buys: least noise of the rest first.
std::vector<const NodeSensitivity*> by_gain(const SensitivityTable& table);

// As JSON, one format for the cache, for --format json and for quant-mixed. Noise that is not finite is null.
std::string sensitivity_json(const SensitivityTable& table);
// Error bad_input: not such a file, or one that contradicts itself.
Result<SensitivityTable> parse_sensitivity(std::string_view text);

// The text behind SensitivityKey::settings.
std::string settings_text(const StaticSettings& settings);

}  // namespace onnxpress
