// onnxpress passes [NAME]: from the registry; docs/passes.md is `onnxpress passes --format md`.
#include <algorithm>
#include <memory>

#include "base/text.h"
#include "common.h"
#include "pass/docs.h"
#include "pass/registry.h"

namespace onnxpress::cmd {
namespace {

std::string all(const std::string& format) {
  if (format == "md") return passes_markdown(all_passes());
  return format == "json" ? passes_json_schema(all_passes()) : list_passes(all_passes());
}

std::string one(const std::string& format, const PassInfo& info) {
  if (format == "md") return describe_pass_markdown(info);
  return format == "json" ? passes_json_schema({&info, 1}) : describe_pass_text(info);
}

}  // namespace

void add_passes(Cli& cli) {
  auto name = std::make_shared<std::string>();
  CLI::App* const command = cli.add("passes", "List the passes, or describe one", [&cli, name] {
    if (name->empty()) return print(all(cli.format));
    const Registry passes = all_passes();
    const auto found = std::ranges::find(passes, *name, &PassInfo::name);
    if (found != passes.end()) return print(one(cli.format, *found));
    std::vector<std::string> names;
    for (const PassInfo& info : passes) names.push_back(info.name);
    return report_error({Code::usage, fmt::format("unknown pass '{}'{}", *name, did_you_mean(*name, names)), {}});
  });
  command->add_option("NAME", *name, "A pass");
}

}  // namespace onnxpress::cmd
