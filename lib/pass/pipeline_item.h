// Inside of a Pipeline, shared by its parser and its runner.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pass/pipeline.h"

namespace onnxpress {

inline constexpr std::int64_t kDefaultRounds = 10;
inline constexpr std::int64_t kMaxRounds = 1000;

struct Pipeline::Item {
  enum class Kind { pass, fixpoint, on };
  Kind kind = Kind::pass;

  const PassInfo* info = nullptr;  // of a pass
  std::shared_ptr<void> options;
  std::unique_ptr<Pass> pass;

  Selection selection;  // only=/skip= of a pass; the patterns of on{} as `only`
  std::int64_t max_rounds = kDefaultRounds;
  std::vector<std::shared_ptr<const Item>> children;

  std::string print() const;
};

// Builds one pass item option by option; the parser and the subcommands share its checks and messages.
class PassBuilder {
 public:
  static Result<PassBuilder> start(std::string_view pass, Registry registry);
  // Unknown or given before?
  Status check_key(std::string_view key);
  // After check_key(key).
  Status set(std::string_view key, const OptionText& text);
  std::shared_ptr<const Pipeline::Item> finish();

 private:
  std::shared_ptr<Pipeline::Item> item_ = std::make_shared<Pipeline::Item>();
  std::vector<std::string> seen_;
};

}  // namespace onnxpress
