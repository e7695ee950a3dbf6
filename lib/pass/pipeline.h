// The pipeline language: parse, print, run. A recipe file is exactly this text.
//
//   pipeline = item { "," item } ;
//   item     = pass | "fixpoint" [ "{" "max=" int "}" ] "(" pipeline ")" | "on" "{" selector { " " selector } "}" "(" pipeline ")" | "@" preset ;
//   pass     = name [ "{" { key "=" value } "}" ] ;
//   value    = bare | quoted | "[" value { "," value } "]" ;     "#" starts a comment; white space is free
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pass/pass.h"

namespace onnxpress {

// One value of the language on its own: `bare`, `"quoted"` or `[a,b]`. Error: usage.
Result<OptionText> parse_value(std::string_view text);

// What one pass did, for the report.
struct PassRecord {
  std::string pass;  // canonical text with its options
  bool changed = false;
  std::size_t nodes_done = 0, nodes_skipped = 0;
  std::uint64_t bytes_before = 0, bytes_after = 0;  // weight payload bytes
  double seconds = 0;
  std::uint64_t peak_memory = 0;  // VmHWM of the process after the pass, bytes
};

struct Preset {
  std::string name, pipeline, summary;
};
const std::vector<Preset>& all_presets();

// Immutable; copies share their passes. The registry a pipeline was parsed with must outlive it.
class Pipeline {
 public:
  // Errors (usage) name line and column, show the text with a caret, and say "did you mean".
  static Result<Pipeline> parse(std::string_view text, Registry registry);
  // A pipeline of one pass with the options given as written (subcommands).
  static Result<Pipeline> single(std::string_view pass, const std::vector<std::pair<std::string, OptionText>>& options,
                                 Registry registry);
  // Canonical text; parse(print()) prints the same. Options equal to their default are left out; presets are expanded.
  std::string print() const;
  bool needs_data() const;
  bool lossy() const;

  struct Checks {
    bool verify_each = false;  // ONNX checker after each pass that changed something
    bool honesty = false;      // changed flag against the model's fingerprint, both ways (tests)
    std::function<Status(const Model&)> checker = {};  // supplied by the caller: lib/pass does not know lib/io
  };
  Result<Outcome> run(Model& model, PassContext& context, const Checks& checks, std::vector<PassRecord>* records) const;

  struct Item;

 private:
  std::vector<std::shared_ptr<const Item>> items_;
};

}  // namespace onnxpress
