// onnxpress compress IN -o OUT -p PIPELINE | -r FILE
#include <memory>

#include "base/file.h"
#include "compress_flags.h"
#include "pass/registry.h"

namespace onnxpress::cmd {
namespace {

constexpr std::uint64_t kMaxRecipe = std::uint64_t{1} << 20;

struct Flags {
  CompressFlags common;
  std::string pipeline, recipe;
};

Result<Pipeline> read_pipeline(const Flags& flags, bool given, std::string& origin) {
  if (given) {
    origin = "-p";
    return Pipeline::parse(flags.pipeline, all_passes());
  }
  if (flags.recipe.empty()) return fail(Code::usage, "a pipeline is required: -p PIPELINE or -r FILE");
  origin = flags.recipe;
  OP_LET(const std::string text, read_text_file(flags.recipe, kMaxRecipe));
  auto pipeline = Pipeline::parse(text, all_passes());
  if (!pipeline) return rethrow(std::move(pipeline).error(), flags.recipe);
  return pipeline;
}

}  // namespace

void add_compress(Cli& cli) {
  auto flags = std::make_shared<Flags>();
  auto command = std::make_shared<CLI::App*>();
  *command = cli.add("compress", "Run a pipeline of passes over a model", [&cli, flags, command] {
    std::string origin;
    auto pipeline = read_pipeline(*flags, (*command)->count("--pipeline") > 0, origin);
    if (!pipeline) return report_error(pipeline.error());
    return run_compress(cli, **command, flags->common, std::move(*pipeline), origin);
  });
  CLI::Option* const text =
      (*command)
          ->add_option("-p,--pipeline", flags->pipeline, "Passes, e.g. '@clean,prune-magnitude{sparsity=0.5}'")
          ->type_name("TEXT");
  (*command)
      ->add_option("-r,--recipe", flags->recipe, "A file with the pipeline text")
      ->type_name("FILE")
      ->excludes(text);
  flags->common.add(*command);
}

}  // namespace onnxpress::cmd
