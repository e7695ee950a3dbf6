// One command per registered pass: every option is a flag, round_to is --round-to.
#include <algorithm>
#include <cassert>
#include <map>
#include <memory>

#include "base/text.h"
#include "compress_flags.h"
#include "pass/registry.h"

namespace onnxpress::cmd {
namespace {

struct Flags {
  CompressFlags common;
  std::map<std::string, std::string> values;  // by option key, as typed
  std::map<std::string, bool> switches;
  std::map<std::string, std::string> names;  // the flag of each option key
  std::vector<std::string> only, skip;
};

std::string help_of(const Field& field) {
  std::vector<std::string> notes;
  if (!field.fallback.empty()) notes.push_back("default " + field.fallback);
  if (const std::string range = range_text(field); !range.empty()) notes.push_back(range);
  return notes.empty() ? field.help : field.help + " (" + join(notes, "; ") + ")";
}

// A key with the name of a common flag gets the pass's own name in front: --max-drop is the gate, --mixed-max-drop the
// option of quant-mixed.
std::string option_flag(const CLI::App* command, const std::string& pass, const std::string& key) {
  std::string flag = flag_of(key);
  if (command->get_option_no_throw(flag) != nullptr)
    flag = "--" + pass.substr(pass.find('-') + 1) + "-" + flag.substr(2);
  assert(command->get_option_no_throw(flag) == nullptr);
  return flag;
}

void add_option(CLI::App* command, const std::string& pass, const Field& field, Flags& flags) {
  const std::string flag = option_flag(command, pass, field.key);
  flags.names[field.key] = flag;
  CLI::Option* const option =
      field.type == "bool"
          ? command->add_flag(flag + ",!--no-" + flag.substr(2), flags.switches[field.key], help_of(field))
          : command->add_option(flag, flags.values[field.key], help_of(field))->type_name(field.type);
  option->group("Options of the pass");
}

// A list is typed a,b,c or [a,b,c]; other values stand as they are, no quoting needed.
Result<OptionText> typed_value(const Field& field, const std::string& text) {
  if (!field.type.starts_with("list")) return OptionText{{text}, false};
  if (text.starts_with('[')) return parse_value(text);
  return OptionText{split(text, ','), true};
}

Result<Pipeline> single_pass(const CLI::App& command, const PassInfo& info, const Flags& flags) {
  std::vector<std::pair<std::string, OptionText>> options;
  for (const Field& field : info.options) {
    const std::string& flag = flags.names.at(field.key);
    if (command.count(flag) == 0) continue;
    if (field.type == "bool") {
      options.push_back({field.key, {{flags.switches.at(field.key) ? "true" : "false"}, false}});
    } else {
      auto value = typed_value(field, flags.values.at(field.key));
      if (!value) return rethrow(std::move(value).error(), flag);
      options.emplace_back(field.key, std::move(*value));
    }
  }
  for (const auto& [key, patterns] : {std::pair("only", &flags.only), std::pair("skip", &flags.skip)})
    if (!patterns->empty()) options.push_back({key, {*patterns, patterns->size() > 1}});
  return Pipeline::single(info.name, options, all_passes());
}

void add_pass(Cli& cli, const PassInfo& info) {
  auto flags = std::make_shared<Flags>();
  auto command = std::make_shared<CLI::App*>();
  *command = cli.add(info.name, info.summary, [&cli, &info, flags, command] {
    auto pipeline = single_pass(**command, info, *flags);
    if (!pipeline) return report_error(pipeline.error());
    return run_compress(cli, **command, flags->common, std::move(*pipeline), "command");
  });
  (*command)->group("Passes, each a command");
  (*command)->footer("More on it: onnxpress passes " + info.name);
  flags->common.add(*command);
  for (const Field& field : info.options) add_option(*command, info.name, field, *flags);
  const auto patterns = [&](const char* flag, std::vector<std::string>& out, const char* help) {
    (*command)
        ->add_option(flag, out, help)
        ->type_name("PATTERN")
        ->allow_extra_args(false)
        ->group("Options of the pass");
  };
  patterns("--only", flags->only, "Touch only matching nodes: name, glob, re:REGEX or op:TYPE; may be repeated");
  patterns("--skip", flags->skip, "Never touch matching nodes; may be repeated");
}

}  // namespace

void add_pass_commands(Cli& cli) {
  for (const PassInfo& info : all_passes()) add_pass(cli, info);
}

}  // namespace onnxpress::cmd
