#include "flow/compress.h"

#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "flow/compare.h"
#include "io/load.h"
#include "pass/registry.h"
#include "support/models.h"
#include "support/process.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

struct Fixture {
  TempDir dir;
  CompressRequest request;
  explicit Fixture(std::string_view pipeline = "clean-identity") {
    write_small_model(dir.path("in.onnx"));
    write_samples(dir.path("s.npy"));
    request.tool_version = "test";
    request.input = dir.path("in.onnx");
    request.output = dir.path("out.onnx");
    request.pipeline = *Pipeline::parse(pipeline, all_passes());
    request.latency = false;
  }
  bool written() const { return std::filesystem::exists(request.output); }
};

}  // namespace

TEST_CASE("compress writes the model and says everything about it") {
  Fixture fixture;
  fixture.request.eval.path = fixture.dir.path("s.npy");
  const auto result = compress(fixture.request);
  REQUIRE(result);
  CHECK(result->code == Code::ok);
  CHECK(result->written);
  const Report& report = result->report;
  CHECK(report.input.model_bytes == std::filesystem::file_size(fixture.request.input));
  REQUIRE(report.output);
  CHECK(report.output->model_bytes == std::filesystem::file_size(fixture.request.output));
  CHECK(report.output->hash.size() == 32);
  CHECK(report.before.nodes == 3);
  CHECK(report.after->nodes == 2);
  CHECK(report.passes.size() == 1);
  REQUIRE(report.comparison);
  CHECK(report.comparison->outputs.front().closeness.equal());
  CHECK(report.layers.has_value());
  CHECK_FALSE(report.latencies.has_value());
  CHECK(report.provenance.pipeline == "clean-identity");
  CHECK(report.provenance.data.front().role == "evaluation");
}

TEST_CASE("an untouched model keeps its metadata as it was") {
  Fixture fixture("clean-duplicates");
  const auto result = compress(fixture.request);
  REQUIRE(result);
  CHECK(result->written);
  CHECK(result->report.warnings.size() == 1);
  CHECK(load_model(fixture.request.output)->metadata(kPipelineKey).empty());
  fixture.request.strict = fixture.request.overwrite = true;
  CHECK(compress(fixture.request)->code == Code::unsupported);
}

TEST_CASE("a failed gate writes nothing, unless asked to") {
  Fixture fixture;
  fixture.request.gates.max_size = 10;
  const auto failed = compress(fixture.request);
  REQUIRE(failed);
  CHECK(failed->code == Code::gate_failed);
  CHECK_FALSE(failed->written);
  CHECK_FALSE(fixture.written());
  fixture.request.keep_on_fail = true;
  const auto kept = compress(fixture.request);
  CHECK(kept->code == Code::gate_failed);
  CHECK(fixture.written());
}

TEST_CASE("a dry run has the exact size of what would be written") {
  Fixture fixture("prune-magnitude{sparsity=0.5 min_elements=1}");
  fixture.request.dry_run = true;
  const auto dry = compress(fixture.request);
  REQUIRE(dry);
  CHECK_FALSE(fixture.written());
  fixture.request.dry_run = false;
  CHECK(compress(fixture.request)->report.output->model_bytes == dry->report.output->model_bytes);
}

TEST_CASE("measuring commands fill one report") {
  const Fixture fixture;
  InspectRequest inspection;
  inspection.model = fixture.request.input;
  const auto inspected = inspect(inspection);
  REQUIRE(inspected);
  CHECK(inspected->before.parameters == 256);
  CHECK_FALSE(inspected->output.has_value());
  CompareRequest comparison;
  comparison.before = comparison.after = fixture.request.input;
  CHECK_FALSE(compare_models(comparison)->comparison.has_value());
  EvalRequest evaluation;
  evaluation.model = fixture.request.input;
  CHECK(eval_model(evaluation).error().code == Code::usage);
}
