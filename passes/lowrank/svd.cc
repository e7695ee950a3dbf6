// Low-rank factorization of dense layers by truncated SVD: W = U S V^T ~ A B, A = U_r sqrt(S_r), B = sqrt(S_r) V_r^T.
//
//   x ─► MatMul(W) ─► y          =>   x ─► MatMul(A) ─► MatMul(B) ─► y      W [m, n] => A [m, r], B [r, n]
//   x ─► Gemm(W, c) ─► y         =>   x ─► Gemm(A) ─► Gemm(B, c) ─► y       transposed or left operands likewise
//   x ─► Conv 1x1 (W, b) ─► y    =>   x ─► Conv(B) ─► Conv(A, b) ─► y       strides and pads on the first
//
// The node becomes the second of the pair and keeps its name and output. It pays when r (m + n) < m n.
#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/parallel.h"
#include "ir/rewriters.h"
#include "num/linalg.h"
#include "pass/pass.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

struct Options {
  std::optional<std::int64_t> rank;
  std::optional<double> ratio;
  std::optional<double> energy;
  std::int64_t round_to = 1;
  double min_saving = 0;
};
constexpr double kDefaultEnergy = 0.98;

// Working memory of the decompositions that run at once, when the user sets no limit.
constexpr std::uint64_t kInFlight = std::uint64_t{2} << 30;

// A node with a weight that can be factored; the weight is seen as the matrix [m, n] that its tensor stores.
struct Site {
  Node node;
  std::size_t slot = 0;  // of the weight; the data is at 1 - slot
  std::size_t m = 0, n = 0;
  bool left_first = false;  // the data meets A first, y = (x A) B; else B first, y = A (B x)

  std::size_t in() const { return left_first ? m : n; }
  std::size_t out() const { return left_first ? n : m; }
  std::string_view weight() const { return node.input(slot); }
};

struct Weight {
  Initializer initializer;
  std::vector<Site> sites;
};

struct Factors {
  std::size_t rank = 0;
  double energy = 0;
  Tensor left, right;   // A and B, in the dtype and number of axes of the weight
  std::string refusal;  // why there are none
};

std::string shape_refusal(const Node& node, const Dims& dims) {
  if (node.is("Gemm") && node.graph().model().opset() < 7) return "Gemm before opset 7 broadcasts by attribute";
  if (!node.is("Conv")) return dims.size() == 2 ? "" : fmt::format("its weight has {} axes, not 2", dims.size());
  if (node.attr_int("group", 1) != 1) return fmt::format("it has {} groups", node.attr_int("group", 1));
  if (dims.size() < 3) return fmt::format("its weight has {} axes", dims.size());
  if (std::ranges::any_of(dims.begin() + 2, dims.end(), [](std::int64_t dim) { return dim != 1; }))
    return fmt::format("weight {} is not 1x1: that takes a spatial factorization", dims_text(dims));
  return {};
}

// The site, or why the node is none.
std::expected<Site, std::string> find_site(const Node& node) {
  Site site{.node = node};
  std::optional<std::pair<DType, Dims>> type;
  std::string reason(kWeightNotConstant);
  for (const std::size_t slot : {std::size_t{0}, std::size_t{1}}) {
    if (slot == 0 && node.is("Conv")) continue;
    auto constant = node.graph().constant_type(node.input(slot));
    if (!constant && reason == kWeightNotConstant) reason = not_constant_reason(node, slot);
    if (!constant) continue;
    if (type) return std::unexpected("both operands are constant: run fold-constants");
    type = std::move(constant);
    site.slot = slot;
  }
  if (!type) return std::unexpected(reason);
  const auto& [dtype, dims] = *type;
  if (!node.graph().constant_initializer(site.weight()))
    return std::unexpected(node.graph().kind() == Graph::Kind::function
                               ? "its weight is a Constant node of a function, which can hold no factors"
                               : "its weight is a Constant node: run clean-constants first");
  if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::f16 && dtype != DType::bf16)
    return std::unexpected(
        fmt::format("weight '{}' is {}, not a float of 16 bits or more", site.weight(), dtype_name(dtype)));
  if (std::string refusal = shape_refusal(node, dims); !refusal.empty()) return std::unexpected(std::move(refusal));
  site.m = static_cast<std::size_t>(dims[0]);
  site.n = static_cast<std::size_t>(dims[1]);
  if (site.m == 0 || site.n == 0) return std::unexpected("its weight is empty");
  const bool transposed = node.is("Gemm") && node.attr_int(site.slot == 0 ? "transA" : "transB", 0) != 0;
  site.left_first = !node.is("Conv") && (site.slot == 1) != transposed;
  return site;
}

bool saves(std::size_t rank, std::size_t m, std::size_t n) { return rank * (m + n) < m * n; }

// Are these two one factored layer already? Then factoring either again would only add loss: this is what keeps the
// pass idempotent, and it spares layers that were trained in this form.
bool is_pair(const Site& first, const Site& second) {
  const std::string_view middle = first.node.output(0);
  return first.node.op() == second.node.op() && first.slot == second.slot &&
         second.node.input(1 - second.slot) == middle && first.out() == second.in() &&
         (first.node.input(2).empty() || first.node.attr_float("beta", 1) == 0) &&
         saves(second.in(), first.in(), second.out());
}

bool is_factored(const Site& site) {
  const Graph& graph = site.node.graph();
  const std::string_view data = site.node.input(1 - site.slot);
  if (const Node before = graph.producer(data); before && graph.uses(data).size() == 1 && !graph.is_output(data))
    if (const auto first = find_site(before); first && is_pair(*first, site)) return true;
  const std::string_view result = site.node.output(0);
  const auto& uses = graph.uses(result);
  if (uses.size() != 1 || !uses[0].node || uses[0].captured || graph.is_output(result)) return false;
  const auto second = find_site(uses[0].node);
  return second && is_pair(site, *second);
}

// The new node in front of the old one. Conv: the data is sampled and padded before the first product, which is sound
// since a linear map of padding zeros is zero.
NodeSpec first_of_pair(const Site& site, const std::string& weight, const std::string& middle) {
  const Node& node = site.node;
  NodeSpec spec{.op = std::string(node.op()), .inputs = {weight, weight}, .outputs = {middle}};
  spec.inputs[1 - site.slot] = node.input(1 - site.slot);
  if (node.has_attr("auto_pad")) spec.attributes.emplace_back("auto_pad", node.attr_string("auto_pad", ""));
  for (const char* key : {"dilations", "kernel_shape", "pads", "strides"})
    if (node.has_attr(key)) spec.attributes.emplace_back(key, node.attr_ints(key));
  for (const char* key : {"transA", "transB"})
    if (node.has_attr(key)) spec.attributes.emplace_back(key, node.attr_int(key, 0));
  return spec;
}

class LowrankSvd final : public Pass {
 public:
  explicit LowrankSvd(const Options& options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("rank", &Options::rank, "keep this many singular values", {1, {}})
        .add("ratio", &Options::ratio, "keep this share of the layer's weights: rank = ratio * m n / (m + n)", {0, 1})
        .add("energy", &Options::energy,
             "keep the smallest rank that holds this share of the sum of squares; 0.98 when rank, ratio and energy are "
             "not given",
             {0, 1})
        .add("round_to", &Options::round_to, "round the rank up to a multiple, where that still saves", {1, {}})
        .add("min_saving", &Options::min_saving, "leave a layer that would save a smaller share of its weights",
             {0, 1});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (options_.rank.has_value() + options_.ratio.has_value() + options_.energy.has_value() > 1)
      return fail(Code::usage, "rank, ratio and energy exclude each other");
    const std::vector<Weight> weights = plan(model, context);
    std::uint64_t largest = 0;
    for (const Weight& weight : weights)
      largest = std::max(largest, thin_svd_bytes(weight.sites[0].m, weight.sites[0].n));
    const unsigned jobs = weight_jobs(context.jobs, largest, context.memory_limit, kInFlight);
    Rewriters rewriters(model);
    OP_TRY(execute_and_commit<Factors>(
        weights.size(), jobs, [&](std::size_t i) { return factor(weights[i]); },
        [&](std::size_t i, Factors factors) -> Status {
          commit(weights[i], std::move(factors), rewriters, context);
          return {};
        }));
    OP_LET(const bool changed, rewriters.commit());
    return Outcome{changed};
  }

 private:
  // Every weight to factor once, in the order of its first reader.
  static std::vector<Weight> plan(const Model& model, PassContext& context) {
    std::vector<Weight> weights;
    std::unordered_map<const void*, std::size_t> seen;
    for (Graph* graph : model.graphs()) {
      for (const Node& node : graph->nodes()) {
        if (!node.is("MatMul") && !node.is("Gemm") && !node.is("Conv")) continue;
        if (!context.selected(node)) continue;
        const auto site = find_site(node);
        if (!site) {
          context.skipped(node, site.error());
          continue;
        }
        const Initializer initializer = graph->constant_initializer(site->weight());
        const auto [place, fresh] = seen.try_emplace(initializer.proto(), weights.size());
        if (fresh) weights.push_back({initializer, {}});
        weights[place->second].sites.push_back(*site);
      }
    }
    std::erase_if(weights, [&](const Weight& weight) { return must_stay(weight, context); });
    return weights;
  }

  static bool must_stay(const Weight& weight, PassContext& context) {
    std::vector<Use> readers;
    for (const Site& site : weight.sites) readers.push_back({site.node, site.slot, false});
    std::string reason = foreign_reader(weight.initializer.graph(), weight.initializer.name(), readers);
    if (reason.empty() && std::ranges::any_of(weight.sites, is_factored))
      reason = "it is half of a low-rank pair already";
    if (reason.empty()) return false;
    for (const Site& site : weight.sites) context.skipped(site.node, reason);
    return true;
  }

  // The rank that the options ask for; the singular values are looked at only when it depends on them.
  std::size_t wanted_rank(std::size_t m, std::size_t n, std::span<const double> s) const {
    const double break_even = static_cast<double>(m) * static_cast<double>(n) / static_cast<double>(m + n);
    std::size_t rank = 0;
    if (options_.rank) {
      rank = static_cast<std::size_t>(*options_.rank);
    } else if (options_.ratio) {
      rank = static_cast<std::size_t>(std::floor(*options_.ratio * break_even));
    } else {
      rank = rank_for_energy(s, options_.energy.value_or(kDefaultEnergy));
    }
    rank = std::clamp<std::size_t>(rank, 1, std::min(m, n));
    const auto step = static_cast<std::size_t>(options_.round_to);
    const std::size_t rounded = (rank + step - 1) / step * step;
    return rounded <= std::min(m, n) && saves(rounded, m, n) ? rounded : rank;
  }

  // "" when rank r saves enough.
  std::string saving_refusal(std::size_t rank, std::size_t m, std::size_t n) const {
    const std::string numbers =
        fmt::format("rank {} of {}x{} takes {} weights instead of {}", rank, m, n, rank * (m + n), m * n);
    if (!saves(rank, m, n)) return numbers + ": not smaller";
    const double saving = 1 - static_cast<double>(rank * (m + n)) / static_cast<double>(m * n);
    return saving < options_.min_saving ? fmt::format("{}: saves less than {}", numbers, options_.min_saving) : "";
  }

  Result<Factors> factor(const Weight& weight) const {
    const auto [m, n] = std::pair(weight.sites[0].m, weight.sites[0].n);
    Factors out;
    if (options_.rank || options_.ratio) {
      out.refusal = saving_refusal(wanted_rank(m, n, {}), m, n);
      if (!out.refusal.empty()) return out;
    }
    OP_LET(const Tensor tensor, weight.initializer.read());
    OP_LET(const Tensor wide, convert(tensor.view(), DType::f64));
    const auto svd = thin_svd(wide.as<double>(), m, n);
    if (!svd) {
      out.refusal = fmt::format("weight '{}': {}", weight.initializer.name(), svd.error().what);
      return out;
    }
    out.rank = wanted_rank(m, n, svd->s);
    out.energy = energy_of_rank(svd->s, out.rank);
    out.refusal = saving_refusal(out.rank, m, n);
    if (!out.refusal.empty()) return out;
    const LowRank factors = low_rank(*svd, out.rank);
    Dims left = tensor.dims(), right = tensor.dims();
    left[1] = right[0] = static_cast<std::int64_t>(out.rank);
    OP_LET(out.left, convert(Tensor::of<double>(DType::f64, left, factors.left).view(), tensor.dtype()));
    OP_LET(out.right, convert(Tensor::of<double>(DType::f64, right, factors.right).view(), tensor.dtype()));
    return out;
  }

  static void commit(const Weight& weight, Factors factors, Rewriters& rewriters, PassContext& context) {
    for (const Site& site : weight.sites) {
      if (!factors.refusal.empty()) {
        context.skipped(site.node, factors.refusal);
        continue;
      }
      context.done(site.node,
                   fmt::format("rank {} of {}x{}: {} -> {} weights, {:.3f} % of the energy", factors.rank, site.m,
                               site.n, site.m * site.n, factors.rank * (site.m + site.n), 100 * factors.energy));
    }
    if (!factors.refusal.empty()) return;
    Rewriter& rewriter = rewriters.of(weight.initializer.graph());
    const std::string name(weight.initializer.name());
    const std::string left = rewriter.fresh_value(name + "_lowrank_a"),
                      right = rewriter.fresh_value(name + "_lowrank_b");
    // Up to opset 10 a Gemm must have a bias; beta = 0 says that it is none.
    std::string no_bias;
    const bool needs_bias = weight.initializer.graph().model().opset() < 11;
    if (needs_bias && std::ranges::any_of(weight.sites, [](const Site& site) { return site.node.is("Gemm"); })) {
      no_bias = rewriter.fresh_value(name + "_lowrank_zero");
      rewriter.add_initializer(no_bias, Tensor(factors.left.dtype(), {1}));
    }
    rewriter.add_initializer(left, std::move(factors.left));
    rewriter.add_initializer(right, std::move(factors.right));
    rewriter.remove_initializer(weight.initializer);
    for (const Site& site : weight.sites) split(site, left, right, no_bias, rewriters.of(site.node.graph()));
  }

  static void split(const Site& site, const std::string& left, const std::string& right, const std::string& no_bias,
                    Rewriter& rewriter) {
    const Node& node = site.node;
    const std::string middle = rewriter.fresh_value(std::string(node.output(0)) + "_lowrank");
    NodeSpec first = first_of_pair(site, site.left_first ? left : right, middle);
    if (!node.name().empty()) first.name = rewriter.fresh_node(std::string(node.name()) + "_lowrank");
    if (node.is("Gemm") && !no_bias.empty()) {
      first.inputs.push_back(no_bias);
      first.attributes.emplace_back("beta", 0.0F);
    }
    rewriter.insert_before(node, std::move(first));
    rewriter.set_input(node, 1 - site.slot, middle);
    rewriter.set_input(node, site.slot, site.left_first ? right : left);
    // What the first of the pair has done already.
    for (const char* key : {"auto_pad", "dilations", "pads", "strides", site.slot == 1 ? "transA" : "transB"})
      rewriter.remove_attribute(node, key);
  }

  Options options_;
};

}  // namespace

PassInfo info_lowrank_svd() {
  return describe_pass<LowrankSvd, Options>({
      .summary = "Split MatMul, Gemm and 1x1 Conv into two thin ones by truncated SVD",
      .description =
          "W [m, n] = U S V^T becomes A B with A = U_r sqrt(S_r) [m, r] and B = sqrt(S_r) V_r^T [r, n], the best "
          "approximation of rank r: MatMul(W) => MatMul(A), MatMul(B), and likewise Gemm (transposed or not; alpha, "
          "beta and bias stay on the second) and 1x1 Conv of one group (strides, pads and dilations on the first, "
          "bias on the second). The constant may be either operand. A shared weight is factored once.\n\n"
          "The rank comes from one of rank, ratio and energy. Layers that would not get smaller are left, with the "
          "numbers in the report: r (m + n) must be below m n. So are larger kernels, grouped convolutions, weights "
          "that are graph inputs or outputs or that something else reads, and pairs that are low-rank already.",
      .example = "lowrank-svd{energy=0.95 round_to=16}",
      .references =
          {"Eckart and Young, The approximation of one matrix by another of lower rank, Psychometrika 1, 1936",
           "Denton et al., Exploiting Linear Structure Within Convolutional Networks, arXiv 1404.0736"},
      .idempotent = true,
      .lossy = true,
  });
}

}  // namespace onnxpress
