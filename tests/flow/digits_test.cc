// The main job on the trained networks of testdata/: small files, kept accuracy, integer kernels, repeatable bytes.
#include <catch2/catch_test_macros.hpp>
#include <fstream>

#include "engine/session.h"
#include "flow/compress.h"
#include "io/load.h"
#include "pass/registry.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

const std::string kTestdata = std::string(ONNXPRESS_SOURCE_DIR) + "/testdata/";

CompressResult compress_digits(const std::string& model, std::string_view pipeline, const std::string& output,
                               bool evaluate = false, unsigned jobs = 0, std::size_t batch = 1) {
  CompressRequest request;
  request.tool_version = "test";
  request.input = kTestdata + "models/" + model + ".onnx";
  request.output = output;
  request.overwrite = true;
  auto parsed = Pipeline::parse(pipeline, all_passes());
  REQUIRE(parsed);
  request.pipeline = std::move(*parsed);
  request.data.path = kTestdata + "data/digits_train.npz";
  request.data.batch = batch;
  if (evaluate) request.eval.path = kTestdata + "data/digits_test.npz";
  request.latency = request.layers = false;
  request.jobs = jobs;
  auto result = compress(request);
  INFO((result ? "" : result.error().text()));
  REQUIRE(result);
  REQUIRE(result->code == Code::ok);
  return std::move(*result);
}

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::size_t count_of(const std::map<std::string, std::size_t>& ops, const std::string& op) {
  const auto found = ops.find(op);
  return found == ops.end() ? 0 : found->second;
}

}  // namespace

TEST_CASE("digits CNN in 8 bits: at most 0.30 of the file, 0.5 points of top-1, every convolution a QLinearConv") {
  const TempDir folder;
  const std::string out = folder.path("cnn.onnx");
  const CompressResult result =
      compress_digits("digits_cnn", "clean-identity,clean-constants,clean-dead,fold-batchnorm,quant-static", out, true);
  const Report& report = result.report;
  CHECK(static_cast<double>(report.output->model_bytes) <= 0.30 * static_cast<double>(report.input.model_bytes));
  REQUIRE(report.comparison);
  const ScorePair* top1 = report.comparison->headline();
  REQUIRE(top1 != nullptr);
  CHECK(top1->metric == Metric::top1);
  CHECK(top1->before >= 98);
  CHECK(*top1->drop <= 0.5);

  const auto model = load_model(out);
  REQUIRE(model);
  std::size_t convolutions = 0;
  for (const Node& node : model->main().nodes()) convolutions += node.is("Conv");
  const auto ops = optimized_ops(*model);
  REQUIRE(ops);
  CHECK(convolutions > 5);
  CHECK(count_of(*ops, "QLinearConv") == convolutions);
  CHECK(count_of(*ops, "Conv") + count_of(*ops, "com.microsoft.FusedConv") == 0);
}

TEST_CASE("the long pipeline works on every test model; its printed form and any thread count give the same bytes") {
  const TempDir folder;
  for (const std::string name : {"digits_cnn", "digits_transformer", "digits_lstm"}) {
    INFO(name);
    compress_digits(name,
                    "fold-batchnorm, lowrank-svd{energy=0.98}, # comments and spaces are free\n"
                    "prune-magnitude{sparsity=0.30 scope=global},quant-static",
                    folder.path("a.onnx"), false, 1);
    const std::string printed = load_model(folder.path("a.onnx"))->metadata(kPipelineKey);
    CHECK(printed == "fold-batchnorm,lowrank-svd{energy=0.98},prune-magnitude{sparsity=0.3 scope=global},quant-static");
    compress_digits(name, printed, folder.path("b.onnx"), false, 2);
    const std::string a = bytes_of(folder.path("a.onnx"));
    CHECK(!a.empty());
    CHECK(a == bytes_of(folder.path("b.onnx")));
  }
}

TEST_CASE("quantized digits networks have the same bytes for batches of 1, 7 and 32 samples and any thread count") {
  const TempDir folder;
  for (const std::string name : {"digits_cnn", "digits_transformer"}) {
    INFO(name);
    for (const char* pipeline : {"@int8-cpu", "@clean,equalize-layers,quant-static{method=entropy},round-adaptive"}) {
      compress_digits(name, pipeline, folder.path("one.onnx"), false, 1, 1);
      const std::string one = bytes_of(folder.path("one.onnx"));
      CHECK(!one.empty());
      for (const auto& [jobs, batch] : {std::pair(2U, 7UZ), std::pair(8U, 32UZ)}) {
        compress_digits(name, pipeline, folder.path("many.onnx"), false, jobs, batch);
        CHECK(one == bytes_of(folder.path("many.onnx")));
      }
    }
  }
}
