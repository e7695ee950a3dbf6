#include <algorithm>
#include <cassert>

#include "base/text.h"
#include "pass/lexer.h"
#include "pass/pipeline_item.h"

namespace onnxpress {
namespace {

using Items = std::vector<std::shared_ptr<const Pipeline::Item>>;

constexpr int kMaxDepth = 32;  // of nested fixpoint, on and presets: a recipe file must not exhaust the stack

class Parser {
 public:
  Parser(std::string_view source, std::vector<Token> tokens, Registry registry, int depth = 0)
      : source_(source), tokens_(std::move(tokens)), registry_(registry), depth_(depth) {}

  Result<Items> parse_all() {
    Items items;
    if (peek().kind == Token::Kind::end) return items;
    OP_TRY(parse_items(items));
    if (peek().kind != Token::Kind::end) return here("expected ',' between passes");
    return items;
  }

  Result<OptionText> parse_only_value() {
    OP_LET(OptionText value, parse_value());
    if (peek().kind != Token::Kind::end) return here("expected one value");
    return value;
  }

  // The pass that was not found, for the message about a preset.
  const std::string& missing_pass() const { return missing_pass_; }

 private:
  const Token& peek() const { return tokens_[next_]; }
  bool at(std::string_view mark) const { return peek().kind == Token::Kind::punctuation && peek().text == mark; }
  bool accept(std::string_view mark) {
    if (!at(mark)) return false;
    ++next_;
    return true;
  }
  std::unexpected<Error> error_at(const Token& token, std::string_view message) const {
    return std::unexpected(located_error(source_, token.offset, message));
  }
  std::unexpected<Error> here(std::string_view message) const {
    const Token& token = peek();
    return error_at(
        token, fmt::format("{}, got {}", message, token.kind == Token::Kind::end ? "the end" : "'" + token.text + "'"));
  }
  // Says where a message without a place belongs.
  Status placed(const Token& token, Status status) const {
    if (!status) return error_at(token, status.error().what);
    return status;
  }
  Status expect(std::string_view mark, std::string_view after) {
    if (!accept(mark)) return here(fmt::format("expected '{}' after {}", mark, after));
    return {};
  }

  Status parse_items(Items& items) {
    do {
      OP_TRY(parse_item(items));
    } while (accept(","));
    return {};
  }

  Status parse_item(Items& items) {
    const Token token = peek();
    if (token.kind != Token::Kind::word) return here("expected a pass");
    ++next_;
    if (token.text.starts_with('@')) return parse_preset(token, items);
    if (token.text == "fixpoint") return parse_fixpoint(items);
    if (token.text == "on") return parse_on(items);
    return parse_pass(token, items);
  }

  Status parse_pass(const Token& name, Items& items) {
    auto builder = PassBuilder::start(name.text, registry_);
    if (!builder) {
      missing_pass_ = name.text;
      return error_at(name, builder.error().what);
    }
    if (accept("{")) OP_TRY(parse_options(*builder));
    items.push_back(builder->finish());
    return {};
  }

  Status parse_options(PassBuilder& builder) {
    while (!accept("}")) {
      const Token key = peek();
      if (key.kind != Token::Kind::word) return here("expected an option or '}'");
      ++next_;
      OP_TRY(placed(key, builder.check_key(key.text)));
      OP_TRY(expect("=", "'" + key.text + "'"));
      const Token at_value = peek();
      OP_LET(const OptionText value, parse_value());
      OP_TRY(placed(at_value, builder.set(key.text, value)));
      OP_TRY(option_separator());
    }
    return {};
  }

  // Options stand apart by white space, by one comma, or both.
  Status option_separator() {
    if (accept(",")) {
      if (at("}")) return here("expected an option after ','");
      return {};
    }
    if (at("}") || peek().after_space) return {};
    return here("expected a space, ',' or '}' between options");
  }

  Result<OptionText> parse_value() {
    if (!accept("[")) {
      OP_LET(std::string word, parse_word("a value"));
      return OptionText{{std::move(word)}, false};
    }
    OptionText value{.items = {}, .is_list = true};
    if (accept("]")) return value;
    do {
      OP_LET(std::string word, parse_word("a value"));
      value.items.push_back(std::move(word));
    } while (accept(","));
    if (!accept("]")) return here("expected ',' or ']' in the list");
    return value;
  }

  Result<std::string> parse_word(std::string_view what) {
    const Token& token = peek();
    if (token.kind != Token::Kind::word && token.kind != Token::Kind::quoted)
      return here(fmt::format("expected {}", what));
    ++next_;
    return token.text;
  }

  Status parse_group(std::string_view after, Pipeline::Item& item) {
    const Token open = peek();
    OP_TRY(expect("(", after));
    if (depth_ >= kMaxDepth) return error_at(open, fmt::format("nested more than {} deep", kMaxDepth));
    ++depth_;
    OP_TRY(parse_items(item.children));
    --depth_;
    if (!accept(")")) return here("expected ',' or ')'");
    return {};
  }

  Status parse_fixpoint(Items& items) {
    auto item = std::make_shared<Pipeline::Item>();
    item->kind = Pipeline::Item::Kind::fixpoint;
    if (accept("{")) {
      if (peek().text != "max") return here("expected 'max=', the only option of fixpoint");
      ++next_;
      OP_TRY(expect("=", "'max'"));
      const Token at_value = peek();
      OP_LET(const OptionText value, parse_value());
      OP_TRY(placed(at_value, parse_option(value, item->max_rounds)));
      if (item->max_rounds < 1 || item->max_rounds > kMaxRounds)
        return error_at(at_value,
                        fmt::format("max: {} is out of range, must be from 1 to {}", item->max_rounds, kMaxRounds));
      OP_TRY(expect("}", "'max'"));
    }
    OP_TRY(parse_group("'fixpoint'", *item));
    items.push_back(std::move(item));
    return {};
  }

  Status parse_on(Items& items) {
    auto item = std::make_shared<Pipeline::Item>();
    item->kind = Pipeline::Item::Kind::on;
    OP_TRY(expect("{", "'on'"));
    do {
      const Token at_pattern = peek();
      OP_LET(const std::string pattern, parse_word("a node pattern"));
      auto selector = Selector::parse(pattern);
      if (!selector) return error_at(at_pattern, selector.error().what);
      item->selection.only.push_back(std::move(*selector));
      accept(",");
    } while (!accept("}"));
    OP_TRY(parse_group("'on{...}'", *item));
    items.push_back(std::move(item));
    return {};
  }

  Status parse_preset(const Token& token, Items& items) {
    const std::string_view name = std::string_view(token.text).substr(1);
    const auto preset = std::ranges::find(all_presets(), name, &Preset::name);
    if (preset == all_presets().end()) {
      std::vector<std::string> names;
      for (const Preset& known : all_presets()) names.push_back("@" + known.name);
      return error_at(token, fmt::format("unknown preset '{}'{}", token.text, did_you_mean(token.text, names)));
    }
    if (at("{")) return here("a preset takes no options");
    auto tokens = tokenize(preset->pipeline);
    assert(tokens);
    Parser inner(preset->pipeline, std::move(*tokens), registry_, depth_);
    auto expanded = inner.parse_all();
    if (!expanded) {
      missing_pass_ = inner.missing_pass();
      assert(!missing_pass_.empty());  // presets are ours: nothing else can be wrong with them
      return error_at(token, fmt::format("preset '{}' needs the pass '{}', which this build does not have", token.text,
                                         missing_pass_));
    }
    items.insert(items.end(), expanded->begin(), expanded->end());
    return {};
  }

  std::string_view source_;
  std::vector<Token> tokens_;
  Registry registry_;
  int depth_;
  std::size_t next_ = 0;
  std::string missing_pass_;
};

}  // namespace

Result<OptionText> parse_value(std::string_view text) {
  OP_LET(std::vector<Token> tokens, tokenize(text));
  return Parser(text, std::move(tokens), {}).parse_only_value();
}

Result<Pipeline> Pipeline::parse(std::string_view text, Registry registry) {
  OP_LET(std::vector<Token> tokens, tokenize(text));
  Pipeline pipeline;
  OP_LET(pipeline.items_, Parser(text, std::move(tokens), registry).parse_all());
  return pipeline;
}

Result<Pipeline> Pipeline::single(std::string_view pass, const std::vector<std::pair<std::string, OptionText>>& options,
                                  Registry registry) {
  OP_LET(PassBuilder builder, PassBuilder::start(pass, registry));
  for (const auto& [key, value] : options) {
    OP_TRY(builder.check_key(key));
    OP_TRY(builder.set(key, value));
  }
  Pipeline pipeline;
  pipeline.items_.push_back(builder.finish());
  return pipeline;
}

}  // namespace onnxpress
