#include "pass/selector.h"

#include <re2/re2.h>

#include <algorithm>

#include "base/text.h"

namespace onnxpress {

struct Selector::Impl {
  enum class Kind { glob, regex, op };
  Kind kind = Kind::glob;
  std::string glob;
  std::unique_ptr<re2::RE2> regex;
};

Result<Selector> Selector::parse(std::string_view pattern) {
  auto impl = std::make_shared<Impl>();
  std::string_view body = pattern;
  if (pattern.starts_with("re:")) {
    impl->kind = Impl::Kind::regex;
    body.remove_prefix(3);
  } else if (pattern.starts_with("op:")) {
    impl->kind = Impl::Kind::op;
    body.remove_prefix(3);
  }
  if (body.empty()) return fail(Code::usage, "'{}' is no node pattern: a name, a glob, re:REGEX or op:TYPE", pattern);
  if (impl->kind == Impl::Kind::regex) {
    re2::RE2::Options options;
    options.set_log_errors(false);
    impl->regex = std::make_unique<re2::RE2>(std::string(body), options);
    if (!impl->regex->ok())
      return fail(Code::usage, "bad regular expression '{}': {}", body, std::string(impl->regex->error()));
  } else {
    impl->glob = body;
  }
  Selector selector;
  selector.text_ = pattern;
  selector.impl_ = std::move(impl);
  return selector;
}

bool Selector::matches(const Node& node) const {
  if (impl_->kind == Impl::Kind::op) {
    if (glob_match(impl_->glob, node.op())) return true;
    return !node.domain().empty() && glob_match(impl_->glob, std::string(node.domain()) + "." + std::string(node.op()));
  }
  const std::string name = node.label();
  return impl_->kind == Impl::Kind::glob ? glob_match(impl_->glob, name) : re2::RE2::FullMatch(name, *impl_->regex);
}

std::string Selection::refusal(const Node& node) const {
  const auto matches = [&](const Selector& selector) { return selector.matches(node); };
  const auto skipping = std::ranges::find_if(skip, matches);
  if (skipping != skip.end()) return "matches skip=" + skipping->text();
  if (!only.empty() && std::ranges::none_of(only, matches)) return "not in only=";
  return "";
}

}  // namespace onnxpress
