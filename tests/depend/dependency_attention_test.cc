#include <catch2/catch_test_macros.hpp>
#include <map>

#include "depend/dependency.h"
#include "depend/remove.h"
#include "prune/unit_loss.h"
#include "support/attention.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

std::vector<UnitGroup> head_groups(const Model& model) {
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  std::vector<UnitGroup> heads;
  for (const UnitGroup& group : dependencies->groups())
    if (group.kind == UnitKind::heads) heads.push_back(group);
  return heads;
}

// Indices that a unit owns of each constant: "wq.1" -> 4.
std::map<std::string, std::size_t> slices(const UnitGroup& group) {
  std::map<std::string, std::size_t> result;
  for (const GroupMember& member : group.members)
    if (member.tensor.is_constant()) result[member.tensor.value + "." + std::to_string(member.axis)] = member.per_unit;
  return result;
}

// Every single unit of the one group of heads, cut, must compute what the model with that unit masked computes.
void require_heads(const std::string& text, std::size_t units, std::int64_t batch_rows = 2,
                   const AttentionShape& shape = {}) {
  INFO(text.substr(text.find("> { ")));
  const Model model = parse(text);
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  std::size_t at = dependencies->groups().size();
  for (std::size_t i = 0; i < dependencies->groups().size(); ++i)
    if (dependencies->groups()[i].kind == UnitKind::heads) at = i;
  REQUIRE(at < dependencies->groups().size());
  REQUIRE(dependencies->groups()[at].units == units);
  const Batch batch = random_batch("x", {batch_rows, shape.sequence, shape.model}, 77);
  const auto original = run_on(model, batch);
  std::vector<Indices> choices = {{0, static_cast<std::uint32_t>(units - 1)}};
  if (units < 3) choices.clear();
  for (std::uint32_t unit = 0; unit < units; ++unit) choices.push_back({unit});
  for (const Indices& choice : choices) {
    const auto silent = without_units(model, model.main(), *dependencies, at, choice);
    REQUIRE(silent);
    Removal removal(at + 1);
    removal[at] = choice;
    Model narrow = model.clone();
    const auto removed = remove_units(narrow, narrow.main(), kept_axes(*dependencies, removal), 1);
    REQUIRE(removed);
    CHECK(*removed);
    const auto expected = run_on(*silent, batch);
    CHECK(sqnr_db(expected, run_on(narrow, batch)) > 90);
    CHECK(sqnr_db(expected, original) < 60);  // the units did something
  }
}

}  // namespace

TEST_CASE("Heads of exported attention are units of what makes and reads them") {
  const auto groups = head_groups(parse(raw_attention()));
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].units == 4);
  CHECK(groups[0].width == 4);
  CHECK(groups[0].approximate.empty());
  CHECK(slices(groups[0]) ==
        std::map<std::string, std::size_t>{
            {"wq.1", 4}, {"bq.0", 4}, {"wk.1", 4}, {"bk.0", 4}, {"wv.1", 4}, {"bv.0", 4}, {"wo.0", 4}});
}

TEST_CASE("Heads come out of exported forms and can be cut: separate, biased, rotary") {
  require_heads(raw_attention(), 4);
  require_heads(raw_attention({.heads = 3, .kv_heads = 3, .width = 5}), 3);
  require_heads(biased_attention(), 4);
  require_heads(rotary_attention(), 4);
}

TEST_CASE("Heads come out of packed projections") {
  require_heads(packed_attention(Unpack::gather), 4);
  require_heads(packed_attention(Unpack::split), 4);
  const auto groups = head_groups(parse(packed_attention(Unpack::gather)));
  REQUIRE(groups.size() == 1);
  CHECK(slices(groups[0]) == std::map<std::string, std::size_t>{{"w.1", 12}, {"b.0", 12}, {"wo.0", 4}});
}

TEST_CASE("Query heads that share keys and values are one unit") {
  for (const Repeat repeat : {Repeat::expand, Repeat::tile, Repeat::gather, Repeat::exported}) {
    require_heads(grouped_attention(repeat), 3);
    const auto groups = head_groups(parse(grouped_attention(repeat)));
    REQUIRE(groups.size() == 1);
    CHECK(slices(groups[0]) ==
          std::map<std::string, std::size_t>{
              {"wq.1", 8}, {"bq.0", 8}, {"wk.1", 4}, {"bk.0", 4}, {"wv.1", 4}, {"bv.0", 4}, {"wo.0", 8}});
  }
}

TEST_CASE("Biases of heads are cut along") {
  const auto groups = head_groups(parse(biased_attention()));
  REQUIRE(groups.size() == 1);
  const auto parts = slices(groups[0]);
  CHECK(parts.at("table.1") == 1);
  CHECK(parts.at("gate.0") == 1);
}

TEST_CASE("Heads of fused attention come out and can be cut") {
  require_heads(fused_attention(), 4);
  require_heads(fused_attention({}, ", qkv_hidden_sizes = [16, 16, 16], unidirectional = 1"), 4);
  require_heads(fused_multi_head(), 4);
  const AttentionShape shape{.heads = 6, .kv_heads = 3, .width = 16};
  require_heads(fused_grouped(false), 3, 1, shape);
  require_heads(fused_grouped(true), 3, 1, shape);
}

TEST_CASE("Fused attention: biases of scores have an axis of heads, or one for all") {
  const AttentionShape shape;
  for (const std::int64_t heads : {4, 1}) {
    const std::string table = ", " + float_tensor("table", {1, heads, 3, 3}, 9);
    require_heads(fused_attention(shape, "", ", , , table", table), 4);
    require_heads(fused_multi_head(shape, ", , , table", table), 4);
    const auto groups = head_groups(parse(fused_multi_head(shape, ", , , table", table)));
    REQUIRE(groups.size() == 1);
    CHECK(slices(groups[0]).contains("table.1") == (heads == 4));
  }
}

TEST_CASE("Fused attention with one bias for queries, keys and values") {
  const AttentionShape shape;
  const std::string constants = projections(shape) + ", " + float_tensor("bias", {48}, 9);
  const std::string text =
      attention_model(shape, constants,
                      kProjected +
                          "o = com.microsoft.MultiHeadAttention <num_heads = 4> (qp, kp, vp, bias) ym = MatMul(o, wo) "
                          "y = Add(ym, bo)");
  require_heads(text, 4);
  CHECK(slices(head_groups(parse(text))[0]).at("bias.0") == 12);
}

TEST_CASE("Rotary positions as an operator keep heads apart") {
  const AttentionShape shape;
  const std::string constants = projections(shape) + ", " + float_tensor("cos", {3, 2}, 11) + ", " +
                                float_tensor("sin", {3, 2}, 12) + ", int64[1] from = {0}";
  for (const std::string attributes : {"", "<num_heads = 4, rotary_embedding_dim = 4>"}) {
    const std::string text = attention_model(
        shape, constants,
        kProjected + "qr = com.microsoft.RotaryEmbedding " + attributes + " (qp, from, cos, sin) " +
            "kr = com.microsoft.RotaryEmbedding " + attributes + " (kp, from, cos, sin) " +
            "o = com.microsoft.MultiHeadAttention <num_heads = 4> (qr, kr, vp) ym = MatMul(o, wo) y = Add(ym, bo)");
    require_heads(text, 4);
  }
}

TEST_CASE("Heads stay when a cache of them is handed out") {
  const AttentionShape shape;
  const std::string text =
      attention_model(shape, projections(shape),
                      kProjected +
                          "o, pk, pv = com.microsoft.MultiHeadAttention <num_heads = 4> (qp, kp, vp) "
                          "ym = MatMul(o, wo) y = Add(ym, bo)",
                      "", ", float[N, 4, 3, 4] pk, float[N, 4, 3, 4] pv");
  const Model model = parse(text);
  CHECK(head_groups(model).empty());
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  bool named = false;
  for (const BlockedAxis& axis : dependencies->blocked())
    named = named || axis.reason.contains("an output of the model");
  CHECK(named);
}

TEST_CASE("Heads stay when shapes do not fit the number of heads, or another domain has the operator") {
  const AttentionShape shape;
  const auto fused = [&](const std::string& op, int heads) {
    return attention_model(shape, projections(shape),
                           kProjected + "o = " + op + " <num_heads = " + std::to_string(heads) +
                               "> (qp, kp, vp) ym = MatMul(o, wo) y = Add(ym, bo)");
  };
  CHECK(head_groups(parse(fused("com.microsoft.MultiHeadAttention", 4))).size() == 1);
  CHECK(head_groups(parse(fused("com.microsoft.MultiHeadAttention", 3))).empty());
  CHECK(head_groups(parse(fused("com.microsoft.MultiHeadAttention", 0))).empty());
  CHECK(head_groups(parse(fused("com.microsoft.LongformerAttention", 4))).empty());
  CHECK(head_groups(parse(fused("MultiHeadAttention", 4))).empty());
}

TEST_CASE("Scores that mix heads keep them") {
  const AttentionShape shape;
  std::string constants = projections(shape);
  const std::string heads = split_heads(shape, constants);
  // talking heads after Shazeer et al.: a softmax over the axis of heads
  const std::string text = attention_model(
      shape, constants, kProjected + heads + attend(shape, constants, "q", "k", "v", "s = Softmax <axis = 1> (s1) "));
  CHECK(head_groups(parse(text)).empty());
}

TEST_CASE("Attention with a number of heads that cannot be is fixed") {
  for (const char* heads : {"kv_num_heads = 1", "num_heads = 0, kv_num_heads = 1", "num_heads = -4, kv_num_heads = 2",
                            "num_heads = 2, kv_num_heads = 4", "num_heads = 9007199254740992, kv_num_heads = 1"}) {
    const Model model = parse(
        "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> g (float[1,4,8] q, float[1,4,8] k, "
        "float[1,4,8] v) => (float[1,4,8] y) { y = com.microsoft.GroupQueryAttention<" +
        std::string(heads) + ">(q, k, v) }");
    CHECK(head_groups(model).empty());
  }
}
