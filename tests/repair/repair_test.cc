#include "repair/repair.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "engine/activations.h"
#include "ir/rewriter.h"
#include "support/coarse.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

TensorRef value(const std::string& name) { return {name, {}, 0}; }

// Values of a weight [rows, inner...] of which only these rows and columns are left.
std::string cut(const std::string& name, std::vector<float> values, Dims dims, const Indices& rows,
                const Indices& columns) {
  const std::size_t columns_all = static_cast<std::size_t>(dims[1]);
  const std::size_t inner = values.size() / static_cast<std::size_t>(dims[0]) / columns_all;
  std::vector<float> left;
  for (const std::uint32_t r : rows)
    for (const std::uint32_t c : columns)
      for (std::size_t i = 0; i < inner; ++i) left.push_back(values[(r * columns_all + c) * inner + i]);
  dims[0] = static_cast<std::int64_t>(rows.size());
  dims[1] = static_cast<std::int64_t>(columns.size());
  std::string text;
  for (const float v : left) text += fmt::format("{}{}", text.empty() ? "" : ", ", v);
  return fmt::format("float{} {} = {{{}}}", dims_text(dims), name, text);
}

Indices all(std::size_t n) {
  Indices indices;
  for (std::uint32_t i = 0; i < n; ++i) indices.push_back(i);
  return indices;
}

// x [n, 3, 8, 8] -> Conv w1 -> Relu -> Conv w2 -> Add with Conv w0 of x -> Relu -> pool -> Gemm -> y, the inside of the
// block cut to the channels `kept` of its 8.
std::string block_text(const Indices& kept) {
  std::vector<float> w1 = random_floats(8 * 27, 1), w2 = random_floats(6 * 8 * 9, 2);
  // The last channels are mixtures of the first: what is removed can be made up for to a good part.
  for (std::size_t c = 4; c < 8; ++c)
    for (std::size_t i = 0; i < 27; ++i) w1[c * 27 + i] = 0.9F * w1[(c - 4) * 27 + i] + 0.3F * w1[(c - 3) % 4 * 27 + i];
  return fmt::format(
      HEAD
      "g (float[n, 3, 8, 8] x) => (float[n, 5] y) <{}, {}, {}, {}, float[6] b2 = {{0.1, 0.2, 0, 0, 0.3, -0.1}}> "
      "{{ s = Conv(x, w0) a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) "
      "c = Conv<pads = [1, 1, 1, 1]>(r, w2, b2) z = Add(c, s) q = Relu(z) p = GlobalAveragePool(q) "
      "f = Flatten(p) y = Gemm<transB = 1>(f, w3) }}",
      cut("w0", random_floats(18, 4), {6, 3, 1, 1}, all(6), all(3)), cut("w1", w1, {8, 3, 3, 3}, kept, all(3)),
      cut("w2", w2, {6, 8, 3, 3}, all(6), kept), cut("w3", random_floats(30, 3), {5, 6}, all(5), all(6)));
}

KeptAxes kept_inside(const Indices& kept) {
  KeptAxes axes;
  axes.set(value("a"), 1, kept);
  axes.set(value("r"), 1, kept);
  axes.set({"w1", "a", 1}, 0, kept);
  axes.set({"w2", "c", 1}, 1, kept);
  return axes;
}

struct Repaired {
  Model model;
  PassContext context = {};
  bool changed = false;
};

struct Setup {
  std::size_t samples = 40, per_batch = 1;
  unsigned jobs = 1;
  bool keep_zeros = false;
  RepairOptions options = {};
  std::string skip = {};
};

Repaired run_repair(const std::string& before, Model after, const KeptAxes& kept, const Setup& setup = {},
                    std::vector<Batch> batches = {}) {
  Repaired out{.model = std::move(after)};
  const Model original = parse(before);
  if (batches.empty()) batches = smooth_samples(setup.samples, setup.per_batch);
  MemorySource source(std::move(batches));
  EngineActivations activations(source, setup.jobs, 0);
  out.context.activations = &activations;
  out.context.jobs = setup.jobs;
  Selection selection;
  if (!setup.skip.empty()) selection.skip.push_back(Selector::parse(setup.skip).value());
  out.context.selections.push_back(&selection);
  const auto changed = repair_pruned(out.model, original, kept, setup.keep_zeros, out.context, setup.options);
  if (!changed) FAIL(changed.error().text());
  out.changed = *changed;
  out.context.activations = nullptr;
  out.context.selections.clear();
  return out;
}

Repaired run_repair(const std::string& before, const std::string& after, const KeptAxes& kept, const Setup& setup = {},
                    std::vector<Batch> batches = {}) {
  return run_repair(before, parse(after), kept, setup, std::move(batches));
}

// Of the outputs, over samples that no repair has seen.
double sqnr(const std::string& original, const Model& model) {
  const Batch batch = smooth_samples(40, 40, 5000).front();
  return sqnr_db(run_on(parse(original), batch), run_on(model, batch));
}

std::vector<float> floats_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().constant(name).value();
  REQUIRE(tensor);
  return to_floats(tensor->view()).value();
}

const Indices kHalf = {0, 1, 2, 3};

}  // namespace

TEST_CASE("repair brings a pruned block close to the original again") {
  const std::string original = block_text(all(8)), pruned = block_text(kHalf);
  const double before = sqnr(original, parse(pruned));
  const Repaired out = run_repair(original, pruned, kept_inside(kHalf));
  CHECK(out.changed);
  const double after = sqnr(original, out.model);
  INFO(before << " dB -> " << after << " dB");
  CHECK(after > before + 10);
  CHECK(has_note(out.context, "repair: 2 of 2 layers refitted"));
  CHECK(out.context.journal.done_count() == 2);
  // What only lost outputs computes what it did.
  CHECK(floats_of(out.model, "w0") == floats_of(parse(pruned), "w0"));
  CHECK(floats_of(out.model, "w1") == floats_of(parse(pruned), "w1"));
  CHECK(ops_of(out.model) == ops_of(parse(pruned)));
  // Without the layers behind: only what lost inputs.
  const Repaired alone = run_repair(original, pruned, kept_inside(kHalf), {.options = {.behind = false}});
  CHECK(floats_of(alone.model, "w3") == floats_of(parse(pruned), "w3"));
  CHECK(floats_of(alone.model, "w2") != floats_of(parse(pruned), "w2"));
  CHECK(sqnr(original, alone.model) > before + 6);
}

TEST_CASE("repair gives the same bytes at any thread count, batch size and memory limit") {
  const std::string original = block_text(all(8)), pruned = block_text(kHalf);
  const std::string expected = run_repair(original, pruned, kept_inside(kHalf)).model.fingerprint().value();
  for (const std::size_t per_batch : {7UZ, 40UZ})
    for (const unsigned jobs : {1U, 4U})
      CHECK(run_repair(original, pruned, kept_inside(kHalf), {.per_batch = per_batch, .jobs = jobs})
                .model.fingerprint()
                .value() == expected);
}

TEST_CASE("repair around zeros keeps every zero") {
  const std::string original = block_text(all(8));
  Model sparse = parse(original);
  for (const char* name : {"w1", "w2"}) {
    std::vector<float> values = floats_of(sparse, name);
    for (std::size_t i = 0; i < values.size(); ++i)
      if (i % 4 < 2) values[i] = 0;  // 2 of 4
    Rewriter rewriter(sparse.main());
    const Initializer initializer = sparse.main().initializer(name);
    rewriter.set_initializer(initializer, Tensor::of_floats(initializer.dims(), values));
    REQUIRE(rewriter.commit());
  }
  const double before = sqnr(original, sparse);
  const Repaired out = run_repair(original, sparse.clone(), {}, {.keep_zeros = true});
  CHECK(out.changed);
  INFO(before << " dB -> " << sqnr(original, out.model) << " dB");
  CHECK(sqnr(original, out.model) > before + 3);
  for (const char* name : {"w1", "w2"}) {
    const std::vector<float> values = floats_of(out.model, name);
    for (std::size_t i = 0; i < values.size(); ++i) CHECK((values[i] == 0) == (i % 4 < 2));
  }
  // No bias where there was none: the file must not grow.
  const auto before_nodes = nodes_of(sparse, "Conv"), after_nodes = nodes_of(out.model, "Conv");
  for (std::size_t i = 0; i < before_nodes.size(); ++i)
    CHECK(after_nodes[i].input_count() == before_nodes[i].input_count());
  CHECK(floats_of(out.model, "w0") == floats_of(sparse, "w0"));
}

TEST_CASE("repair leaves alone what it may not or cannot change") {
  const std::string original = block_text(all(8)), pruned = block_text(kHalf);
  const KeptAxes kept = kept_inside(kHalf);
  CHECK_FALSE(run_repair(original, pruned, kept, {.options = {.repair = RepairOptions::When::off}}).changed);
  CHECK_FALSE(run_repair(original, original, {}).changed);  // nothing was pruned
  const Repaired few = run_repair(original, pruned, kept, {.samples = 4});
  CHECK_FALSE(few.changed);
  CHECK(skip_reason(few.context, "Conv->c").find("5 samples") != std::string::npos);
  const Repaired skipping = run_repair(original, pruned, kept, {.skip = "op:Gemm"});
  CHECK(floats_of(skipping.model, "w3") == floats_of(parse(pruned), "w3"));
  CHECK(floats_of(skipping.model, "w2") != floats_of(parse(pruned), "w2"));
  CHECK(skip_reason(skipping.context, "Gemm->y").find("skip=") != std::string::npos);

  Model model = parse(pruned);
  PassContext none;
  const auto refused = repair_pruned(model, parse(original), kept, false, none, {.repair = RepairOptions::When::on});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::usage);
  const auto nothing = repair_pruned(model, parse(original), kept, false, none, {});
  REQUIRE(nothing);
  CHECK_FALSE(*nothing);
  CHECK(dump(model) == dump(parse(pruned)));
}

TEST_CASE("repair does not touch shared weights, transposed inputs, ConvTranspose and bodies") {
  const auto text = [](float w) {
    return fmt::format(
        HEAD
        "g (float[n, 3, 8, 8] x, bool t) => (float[n, 2, 8, 8] y, float[n, 2, 8, 8] z, float[n, 2, 8, 8] u, "
        "float[n, 2, 8, 8] v) <float[2, 3, 1, 1] first = {{{}, 2, 3, 4, 5, 6}}, "
        "float[2, 2, 1, 1] shared = {{1, 2, 3, 4}}, float[2, 2, 1, 1] t_w = {{1, 2, 3, 5}}, "
        "float[2, 2, 1, 1] body_w = {{2, 1, 3, 5}}> "
        "{{ a = Conv(x, first) y = Conv(a, shared) z = Conv(a, shared) u = ConvTranspose(a, t_w) "
        "v = If (t) <then_branch = b () => (float[n, 2, 8, 8] k) {{ k = Conv(a, body_w) }}, "
        "else_branch = c () => (float[n, 2, 8, 8] l) {{ l = Identity(a) }}> }}",
        w);
  };
  std::vector<Batch> batches = smooth_samples(10, 1);
  for (Batch& batch : batches) batch.inputs.push_back({"t", Tensor::scalar<std::uint8_t>(DType::boolean, 1)});
  const std::string pruned = text(0);
  Model expected = parse(pruned);
  const Repaired out = run_repair(text(1), pruned, {}, {.keep_zeros = true, .skip = "Conv->a"}, std::move(batches));
  CHECK_FALSE(out.changed);
  CHECK(dump(out.model) == dump(expected));
  CHECK(skip_reason(out.context, "Conv->y").find("also") != std::string::npos);
  CHECK(skip_reason(out.context, "ConvTranspose->u").find("ConvTranspose") != std::string::npos);
}

TEST_CASE("repair reaches MatMul, Gemm with alpha and beta, and depthwise convolutions") {
  // Rows of x [n, 4, 6] through two matrices; the inner width goes from 6 to 4.
  const auto text = [](const Indices& kept, float c) {
    std::vector<float> w1 = random_floats(36, 1);
    for (std::size_t r = 0; r < 6; ++r) w1[r * 6 + 5] = 0.5F * w1[r * 6] + 0.4F * w1[r * 6 + 1];
    return fmt::format(HEAD
                       "g (float[n, 4, 6] x) => (float[m, 3] y) <{}, {}, {}, float[5] b = {{1, 0, 0, 0, 1}}, "
                       "float[3] c = {{{}, 2, 3}}, int64[2] to = {{-1, 5}}> {{ h = MatMul(x, w1) r = Tanh(h) "
                       "m = MatMul(r, w2) s = Add(b, m) f = Reshape(s, to) "
                       "y = Gemm<alpha = 0.5, beta = 2.0>(f, w3, c) }}",
                       cut("w1", w1, {6, 6}, all(6), kept), cut("w2", random_floats(30, 2), {6, 5}, kept, all(5)),
                       cut("w3", random_floats(15, 3), {5, 3}, all(5), all(3)), c);
  };
  const Indices kept = {0, 1, 2, 4};
  KeptAxes axes;
  axes.set(value("h"), 2, kept);
  axes.set(value("r"), 2, kept);
  std::vector<Batch> batches;
  for (unsigned n = 0; n < 40; ++n) batches.push_back(random_batch("x", {1, 4, 6}, n));
  const Repaired out = run_repair(text(all(6), 1), text(kept, 0), axes, {}, batches);
  CHECK(out.changed);
  const Batch fresh = random_batch("x", {1, 4, 6}, 999);
  const auto wanted = run_on(parse(text(all(6), 1)), fresh);
  const double before = sqnr_db(wanted, run_on(parse(text(kept, 0)), fresh)),
               after = sqnr_db(wanted, run_on(out.model, fresh));
  INFO(before << " dB -> " << after << " dB");
  CHECK(after > before + 3);
  CHECK(floats_of(out.model, "b") != floats_of(parse(text(kept, 0)), "b"));
  // The Gemm reads what is right on average already, but its bias was not.
  CHECK(std::abs(floats_of(out.model, "c")[0] - 1) < 0.1F);
  CHECK(floats_of(out.model, "w1") == floats_of(parse(text(kept, 0)), "w1"));
}

TEST_CASE("a depthwise convolution behind a cut is exact, the pointwise one behind it is refitted") {
  const auto text = [](const Indices& kept) {
    return fmt::format(HEAD
                       "g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) <{}, {}, {}> {{ a = Conv(x, w1) "
                       "r = Relu(a) d = Conv<group = {}, pads = [1, 1, 1, 1]>(r, w2) y = Conv(d, w3) }}",
                       cut("w1", random_floats(18, 1), {6, 3, 1, 1}, kept, all(3)),
                       cut("w2", random_floats(54, 2), {6, 1, 3, 3}, kept, all(1)),
                       cut("w3", random_floats(24, 3), {4, 6, 1, 1}, all(4), kept), kept.size());
  };
  const Indices kept = {0, 2, 3, 5};
  KeptAxes axes;
  for (const char* name : {"a", "r", "d"}) axes.set(value(name), 1, kept);
  const Repaired out = run_repair(text(all(6)), text(kept), axes);
  CHECK(out.changed);
  CHECK(floats_of(out.model, "w2") == floats_of(parse(text(kept)), "w2"));
  CHECK(floats_of(out.model, "w3") != floats_of(parse(text(kept)), "w3"));
  CHECK(nodes_of(out.model, "Conv").back().input_count() == 3);  // it got a bias
  CHECK(sqnr(text(all(6)), out.model) > sqnr(text(all(6)), parse(text(kept))) + 3);
}

TEST_CASE("a BatchNormalization takes the bias of the convolution in front, and is refitted behind what cannot be") {
  const auto text = [](const Indices& kept, float t) {
    return fmt::format(
        HEAD
        "g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) <{}, {}, float[4] gain = {{1, -2, 0.5, 1}}, "
        "float[4] shift = {{0, 1, 0, 2}}, float[4] mean = {{0, 0.5, 0, 0}}, float[4] var = {{1, 2, 1, 1}}, "
        "float[4, 4, 1, 1] t_w = {{{}, 1, 0, 2, 1, 0, 0.5, 1, 2, 0, 1, 0, 0.5, 1, 0.5, 1}}, "
        "float[4] gain2 = {{1, 1, 2, 1}}> {{ a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) "
        "n1 = BatchNormalization(c, gain, shift, mean, var) q = Relu(n1) u = ConvTranspose(q, t_w) "
        "n2 = BatchNormalization(u, gain2, shift, mean, var) y = Relu(n2) }}",
        cut("w1", random_floats(18, 1), {6, 3, 1, 1}, kept, all(3)),
        cut("w2", random_floats(24, 3), {4, 6, 1, 1}, all(4), kept), t);
  };
  const Indices kept = {0, 2, 3, 5};
  KeptAxes axes;
  for (const char* name : {"a", "r"}) axes.set(value(name), 1, kept);
  const std::string original = text(all(6), 3), pruned = text(kept, 0.5);
  const Repaired out = run_repair(original, pruned, axes);
  CHECK(out.changed);
  CHECK(floats_of(out.model, "w2") != floats_of(parse(pruned), "w2"));
  CHECK(nodes_of(out.model, "Conv").back().input_count() == 2);
  CHECK(sqnr(original, out.model) > sqnr(original, parse(pruned)) + 3);
  bool norm = false;
  for (const JournalEntry& entry : out.context.journal.entries())
    norm = norm || (entry.done && entry.node == "BatchNormalization->n2");
  CHECK(norm);
  bool first = false;  // it reads what was put right
  for (const JournalEntry& entry : out.context.journal.entries())
    first = first || entry.node == "BatchNormalization->n1";
  CHECK_FALSE(first);
}

TEST_CASE("without data, biases take what removed channels gave on average") {
  // Channel 1 of the BatchNormalization is constant, 2 is not.
  const auto text = [](const Indices& kept, const std::string& norm) {
    return fmt::format(HEAD
                       "g (float[n, 3, 8, 8] x) => (float[n, 2, 8, 8] y) <{}, {}, {}, float[2] b = {{1, 2}}> "
                       "{{ a = Conv(x, w1) n1 = BatchNormalization(a, gain, shift, mean, var) r = Relu(n1) "
                       "y = Conv(r, w2, b) }}",
                       cut("w1", random_floats(9, 1), {3, 3, 1, 1}, kept, all(3)),
                       cut("w2", random_floats(6, 3), {2, 3, 1, 1}, all(2), kept), norm);
  };
  const std::string whole = text(all(3),
                                 "float[3] gain = {1, 0, 1}, float[3] shift = {0, 1.5, 0}, float[3] mean = {0, "
                                 "0.5, 0}, float[3] var = {1, 2, 1}");
  const std::string pruned = text({0, 2},
                                  "float[2] gain = {1, 1}, float[2] shift = {0, 0}, float[2] mean = {0, 0}, "
                                  "float[2] var = {1, 1}");
  KeptAxes axes;
  for (const char* name : {"a", "n1", "r"}) axes.set(value(name), 1, {0, 2});
  axes.set({"w2", "y", 1}, 1, {0, 2});
  Model model = parse(pruned);
  PassContext context;
  const auto changed = repair_pruned(model, parse(whole), axes, false, context, {});
  REQUIRE(changed);
  CHECK(*changed);
  CHECK(sqnr(whole, parse(pruned)) < 40);
  CHECK(sqnr(whole, model) > 100);
  CHECK(context.journal.done_count() == 1);
}

}  // namespace onnxpress::testing
