// What PassInfo says, for people and programs. All of it is deterministic: docs/passes.md is compared with it.
#pragma once

#include <string>

#include "pass/pass.h"

namespace onnxpress {

// Terminal text: one line per pass and preset.
std::string list_passes(Registry registry);
// Terminal text: everything about one pass.
std::string describe_pass_text(const PassInfo& info);

// One section of docs/passes.md, and the whole page.
std::string describe_pass_markdown(const PassInfo& info);
std::string passes_markdown(Registry registry);

// A JSON Schema (2020-12) of an object that maps pass names to their options.
std::string passes_json_schema(Registry registry);

}  // namespace onnxpress
