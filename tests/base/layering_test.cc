// The layering rules of the design, checked on the includes of every source file.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "support/scratch_dir.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostLines = 600;

// What the files of each layer may include besides their own layer. cmd may include everything below it.
const std::map<std::string, std::set<std::string>> kMayUse = {
    {"base", {}},
    {"num", {"base"}},
    {"npz", {"base", "num"}},
    {"ir", {"base", "num"}},
    {"io", {"base", "num", "ir"}},
    {"pass", {"base", "num", "ir"}},
    {"calib", {"base", "num", "ir", "pass"}},
    {"quant", {"base", "num", "ir", "pass", "calib"}},
    {"depend", {"base", "num", "ir", "pass"}},
    {"repair", {"base", "num", "ir", "pass", "calib", "depend"}},
    {"sparse", {"base", "num", "npz", "ir", "pass", "calib"}},
    {"prune", {"base", "num", "ir", "pass", "calib", "depend", "repair", "sparse"}},
    {"data", {"base", "num", "npz", "ir", "io"}},
    {"engine", {"base", "num", "ir", "io", "pass", "data"}},
    {"eval", {"base", "num", "ir", "pass", "data", "engine"}},
    {"report", {"base", "num", "ir", "pass", "data", "engine", "eval"}},
    {"flow",
     {"base", "num", "ir", "io", "pass", "calib", "quant", "depend", "repair", "sparse", "prune", "data", "engine",
      "eval", "report"}},
    {"passes", {"base", "num", "ir", "pass", "calib", "quant", "depend", "repair", "sparse", "prune"}},
    {"cmd",
     {"base", "num", "ir", "io", "pass", "calib", "quant", "depend", "repair", "sparse", "prune", "data", "engine",
      "eval", "report", "flow"}},
};

// Third-party headers that only some layers (or one file) may see, by the beginning of the include.
const std::vector<std::pair<std::string, std::set<std::string>>> kOnlyIn = {
    {"onnxruntime", {"engine"}},
    {"onnx/", {"ir", "io", "engine"}},
    {"google/protobuf", {"ir", "io", "engine"}},
    {"CLI/", {"cmd"}},
    {"CLI11", {"cmd"}},
    {"spdlog", {"base/log.cc"}},
};

struct Include {
  std::string target;
  bool quoted;
};

std::vector<Include> includes_of(const std::string& text) {
  std::vector<Include> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::string_view rest = trim(line);
    if (!rest.starts_with('#')) continue;
    rest = trim(rest.substr(1));
    if (!rest.starts_with("include")) continue;
    rest = trim(rest.substr(7));
    if (rest.empty() || (rest.front() != '"' && rest.front() != '<')) continue;
    const bool quoted = rest.front() == '"';
    const std::size_t end = rest.find(quoted ? '"' : '>', 1);
    if (end != std::string_view::npos) found.push_back({std::string(rest.substr(1, end - 1)), quoted});
  }
  return found;
}

// `path` is relative to the repository: lib/<layer>/..., passes/..., cmd/...
std::string layer_of(const std::string& path) {
  const std::vector<std::string> parts = split(path, '/');
  return parts[0] == "lib" ? parts.at(1) : parts[0];
}

// Why the include is not allowed, or "".
std::string objection(const std::string& path, const Include& include) {
  const std::string layer = layer_of(path);
  for (const auto& [prefix, places] : kOnlyIn) {
    if (!include.target.starts_with(prefix)) continue;
    const bool allowed = places.contains(layer) || (path.starts_with("lib/") && places.contains(path.substr(4)));
    return allowed ? "" : "this library is not for this layer";
  }
  const std::size_t slash = include.target.find('/');
  const std::string to = include.target.substr(0, slash);
  if (layer == "passes" && (to == "passes" || (include.quoted && !kMayUse.contains(to)))) {
    return "a pass may not use another pass";
  }
  if (!kMayUse.contains(to) || slash == std::string::npos) {
    return include.quoted && layer != "cmd" ? "project includes are written layer/file.h" : "";
  }
  return to == layer || kMayUse.at(layer).contains(to) ? "" : "this layer may not use that one";
}

std::vector<std::string> problems_of(const std::string& path, const std::string& text) {
  std::vector<std::string> problems;
  if (!kMayUse.contains(layer_of(path))) problems.push_back(path + ": this folder is in no layer");
  for (const Include& include : includes_of(text)) {
    if (!problems.empty() && problems.back().ends_with("no layer")) break;
    const std::string why = objection(path, include);
    if (!why.empty()) problems.push_back(path + ": #include " + include.target + ": " + why);
  }
  const auto lines = static_cast<std::size_t>(std::ranges::count(text, '\n'));
  if (lines > kMostLines) problems.push_back(path + ": " + std::to_string(lines) + " lines, split it");
  return problems;
}

TEST_CASE("every source file keeps to its layer and its size") {
  const fs::path root = ONNXPRESS_SOURCE_DIR;
  std::vector<std::string> problems;
  std::size_t files = 0;
  for (const char* folder : {"lib", "passes", "cmd"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.path().extension() != ".cc" && entry.path().extension() != ".h") continue;
      const std::string path = fs::relative(entry.path(), root).string();
      for (std::string& problem : problems_of(path, testing::read_bytes(entry.path()))) {
        problems.push_back(std::move(problem));
      }
      ++files;
    }
  }
  std::ranges::sort(problems);
  INFO(join(problems, "\n"));
  CHECK(problems.empty());
  CHECK(files > 30);  // the folders were found
}

bool allowed(const std::string& path, const std::string& include) {
  return problems_of(path, "#pragma once\n  #  include " + include + "  // why\n").empty();
}

TEST_CASE("the rules allow what the design allows") {
  CHECK(allowed("lib/base/log.cc", "<spdlog/spdlog.h>"));
  CHECK(allowed("lib/num/tensor.cc", "\"base/result.h\""));
  CHECK(allowed("lib/ir/model.cc", "<onnx/onnx_pb.h>"));
  CHECK(allowed("lib/engine/session.cc", "<onnxruntime_cxx_api.h>"));
  CHECK(allowed("passes/quant/static.cc", "\"calib/ranges.h\""));
  CHECK(allowed("passes/quant/static.cc", "<algorithm>"));
  CHECK(allowed("cmd/main.cc", "<CLI/CLI.hpp>"));
  CHECK(allowed("cmd/main.cc", "\"report/report.h\""));
  CHECK(allowed("cmd/main.cc", "\"commands.h\""));
}

TEST_CASE("the rules refuse what the design forbids") {
  CHECK_FALSE(allowed("lib/base/text.cc", "<spdlog/spdlog.h>"));
  CHECK_FALSE(allowed("lib/base/file.cc", "\"num/tensor.h\""));
  CHECK_FALSE(allowed("lib/ir/model.cc", "\"io/load.h\""));
  CHECK_FALSE(allowed("lib/pass/pipeline.cc", "<onnx/onnx_pb.h>"));
  CHECK_FALSE(allowed("lib/eval/evaluate.cc", "<onnxruntime_cxx_api.h>"));
  CHECK_FALSE(allowed("lib/report/text.cc", "\"cmd/main.h\""));
  CHECK_FALSE(allowed("lib/pass/pipeline.cc", "\"passes/quant/static.h\""));
  CHECK_FALSE(allowed("lib/eval/evaluate.cc", "<CLI/CLI.hpp>"));
  CHECK_FALSE(allowed("passes/quant/static.cc", "\"engine/session.h\""));
  CHECK_FALSE(allowed("passes/quant/static.cc", "\"lowrank/svd.h\""));
  CHECK_FALSE(allowed("passes/quant/static.cc", "\"passes/quant/dynamic.h\""));
  CHECK_FALSE(allowed("passes/quant/static.cc", "<google/protobuf/message.h>"));
  CHECK_FALSE(allowed("lib/base/text.cc", "\"text.h\""));
  CHECK_FALSE(allowed("lib/strange/x.cc", "<vector>"));
  CHECK(problems_of("lib/base/x.cc", std::string(kMostLines + 1, '\n')).size() == 1);
  CHECK(problems_of("lib/base/x.cc", std::string(kMostLines, '\n')).empty());
}

}  // namespace
}  // namespace onnxpress
