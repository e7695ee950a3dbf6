#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "base/parallel.h"
#include "calib/channel_stats.h"
#include "calib/gram.h"
#include "num/quantize.h"
#include "prune/unit_loss.h"
#include "prune/unit_obs.h"
#include "prune/unit_output.h"
#include "prune/unit_scores.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

// A member that reads units, and the value it reads them from.
struct Reader {
  const GroupMember* weight = nullptr;
  const GroupMember* input = nullptr;
  Node node = {};
};

// The readers of a group whose input is one of its values.
std::vector<Reader> readers_of(const UnitGroup& group, const std::unordered_map<std::string, Node>& nodes) {
  std::map<std::string_view, const GroupMember*> values;
  for (const GroupMember& member : group.members)
    if (!member.tensor.is_constant()) values.emplace(member.tensor.value, &member);
  std::vector<Reader> readers;
  for (const GroupMember& member : group.members) {
    if (!member.tensor.is_constant() || member.role != AxisRole::consumes) continue;
    const auto node = nodes.find(member.tensor.reader);
    if (node == nodes.end()) continue;
    const std::string_view operand = node->second.input(member.tensor.slot == 0 ? 1 : 0);
    const auto input = values.find(operand);
    if (input != values.end()) readers.push_back({&member, input->second, node->second});
  }
  return readers;
}

// ||slice||^2 of every unit.
Result<Doubles> squared_norms(const Graph& graph, const GroupMember& member, std::size_t units) {
  OP_LET(const auto tensor, graph.constant(member.tensor.value));
  OP_LET(const std::vector<float> w, to_floats(tensor->view()));
  OP_LET(const AxisLayout layout, axis_layout(tensor->dims(), static_cast<std::int64_t>(member.axis)));
  Doubles sums(units);
  for (std::size_t i = 0; i < member.indices.size(); ++i)
    for (std::size_t o = 0; o < layout.outer; ++o)
      for (std::size_t k = 0; k < layout.inner; ++k) {
        const double v = static_cast<double>(w[(o * layout.channels + member.indices[i]) * layout.inner + k]);
        sums[i / member.per_unit] += std::isfinite(v) ? v * v : 0;
      }
  return sums;
}

using ValueAxis = std::pair<std::string, std::size_t>;
using StatsTable = std::map<ValueAxis, std::unique_ptr<ChannelStatsAccumulator>>;

// rms of every unit, times the norm of the slice that reads it; empty when the statistics are of no use.
Result<Doubles> reader_scores(const ScoreRequest& request, const Reader& reader, std::size_t units,
                              const StatsTable& table) {
  const ChannelStatsAccumulator& measured = *table.at({reader.input->tensor.value, reader.input->axis});
  const auto& channels = measured.stats().channels;
  if (!measured.trouble().empty() || channels.size() <= std::ranges::max(reader.input->indices)) return Doubles();
  OP_LET(const Doubles norms, squared_norms(request.graph, *reader.weight, units));
  Doubles scores(units);
  const GroupMember& input = *reader.input;
  for (std::size_t i = 0; i < input.indices.size(); ++i)
    scores[i / input.per_unit] += channels[input.indices[i]].mean_square();
  for (std::size_t u = 0; u < units; ++u) scores[u] = std::sqrt(scores[u] * norms[u]);
  scale_to_mean(scores);
  return scores;
}

// A Conv, Gemm or MatMul that second moments can be taken of.
bool has_moments(const Reader& reader, const Dims& dims) {
  if (reader.node.is("Conv")) return reader.weight->tensor.slot == 1 && dims.size() > 2 && reader.weight->axis == 1;
  return reads_channels(reader.node, *reader.weight, dims);
}

// What the second moments of one node's input are: of every group of a convolution the inverse and the weight as rows.
struct Moments {
  PatchShape shape;
  std::unique_ptr<GramAccumulator> sums;
  std::vector<Doubles> inverses = {};  // [length, length] of each group; empty when it has none
  std::vector<Doubles> weights = {};   // [outputs of the group, length]
  Doubles powers = {};                 // of the outputs of each group
};

// About the mean: what is constant of the input goes into a bias.
Status finish(Moments& moments, const Node& node) {
  constexpr double kDamping = 0.01;
  if (!moments.sums->finish().empty()) return {};
  Gram gram = moments.sums->fitted();
  gram.add(moments.sums->held_out());
  moments.sums.reset();
  const PatchShape& shape = moments.shape;
  const std::size_t n = shape.length, outputs = shape.outputs_per_group();
  OP_LET(const auto tensor, node.graph().constant(node.input(1)));
  OP_LET(const std::vector<float> w, to_floats(tensor->view()));
  const bool transposed = node.is("MatMul") || (node.is("Gemm") && node.attr_int("transB", 0) == 0);
  const double rows = static_cast<double>(gram.rows);
  for (std::size_t g = 0; g < shape.groups; ++g) {
    Doubles h(gram.xx_of(g).begin(), gram.xx_of(g).end());
    const auto mean = gram.x_of(g);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) h[i * n + j] = (h[i * n + j] - mean[i] * mean[j] / rows) / rows;
    Doubles weight(outputs * n);
    for (std::size_t o = 0; o < outputs; ++o)
      for (std::size_t i = 0; i < n; ++i)
        weight[o * n + i] = static_cast<double>(transposed ? w[i * outputs + o] : w[(g * outputs + o) * n + i]);
    double power = 0;
    for (std::size_t o = g * outputs; o < (g + 1) * outputs; ++o)
      power += std::max(0.0, gram.yy[o] / rows - gram.y[o] / rows * (gram.y[o] / rows));
    moments.inverses.push_back(damped_inverse(std::move(h), n, kDamping));
    moments.weights.push_back(std::move(weight));
    moments.powers.push_back(power);
  }
  return {};
}

// The readers of one group as problems of the columns of its units alone.
std::vector<ObsReader> obs_readers(const UnitGroup& group, const std::vector<Reader>& readers,
                                   const std::map<std::string, Moments>& moments) {
  std::vector<ObsReader> result;
  for (const Reader& reader : readers) {
    const auto found = moments.find(reader.weight->tensor.reader);
    if (found == moments.end()) continue;
    const Moments& m = found->second;
    const std::size_t n = m.shape.length;
    std::size_t taps = 1;
    for (const std::int64_t k : m.shape.kernel) taps *= static_cast<std::size_t>(k);
    Indices columns;
    std::vector<Indices> of_unit(group.units);
    for (std::size_t i = 0; i < reader.weight->indices.size(); ++i)
      for (std::size_t t = 0; t < taps; ++t) {
        of_unit[i / reader.weight->per_unit].push_back(static_cast<std::uint32_t>(columns.size()));
        columns.push_back(static_cast<std::uint32_t>(reader.weight->indices[i] * taps + t));
      }
    for (std::size_t g = 0; g < m.inverses.size(); ++g) {
      if (m.inverses[g].empty()) continue;
      const std::size_t outputs = m.shape.outputs_per_group(), k = columns.size();
      ObsReader one{.outputs = outputs, .columns = k, .of_unit = of_unit, .power = m.powers[g]};
      for (const std::uint32_t row : columns)
        for (const std::uint32_t column : columns) one.inverse.push_back(m.inverses[g][row * n + column]);
      for (std::size_t o = 0; o < outputs; ++o)
        for (const std::uint32_t column : columns) one.weight.push_back(m.weights[g][o * n + column]);
      result.push_back(std::move(one));
    }
  }
  return result;
}

class ObsScoring {
 public:
  ObsScoring(const ScoreRequest& request, PassContext& context, std::vector<UnitScores> scores)
      : request_(request), groups_(request.list()), context_(context), scores_(std::move(scores)) {}

  Result<std::vector<UnitScores>> run() {
    const auto nodes = nodes_by_key(request_.graph);
    for (const UnitGroup* group : groups_) {
      readers_.push_back(request_.graph.kind() == Graph::Kind::main ? readers_of(*group, nodes)
                                                                    : std::vector<Reader>());
      std::erase_if(readers_.back(), [&](const Reader& reader) { return !add_shape(reader); });
      if (readers_.back().empty()) scores_[readers_.size() - 1].note = "obs does not look at what reads its units";
    }
    const std::uint64_t budget = context_.memory_limit == 0 ? kMoments : context_.memory_limit;
    for (std::size_t begin = 0, end = 0; begin < groups_.size(); begin = end) {
      std::set<std::string> keys;
      std::uint64_t bytes = 0;
      for (end = begin; end < groups_.size(); ++end) {
        std::uint64_t more = 0;
        std::set<std::string> with = keys;
        for (const Reader& reader : readers_[end])
          if (with.insert(reader.weight->tensor.reader).second)
            more += bytes_of(shapes_.at(reader.weight->tensor.reader));
        if (end > begin && bytes + more > budget) break;
        bytes += more;
        keys = std::move(with);
      }
      if (!keys.empty()) OP_TRY(score(begin, end, keys, nodes));
    }
    return std::move(scores_);
  }

 private:
  // Second moments twice (fitted and held out), their inverse, the weight.
  static std::uint64_t bytes_of(const PatchShape& shape) { return 2 * gram_bytes(shape); }

  bool add_shape(const Reader& reader) {
    const auto type = request_.graph.constant_type(reader.weight->tensor.value);
    if (!type || !has_moments(reader, type->second)) return false;
    const PatchShape shape = patch_shape(reader.node, type->second);
    if (request_.longest != 0 && shape.length > request_.longest) return false;
    if (bytes_of(shape) > (context_.memory_limit == 0 ? kMoments : context_.memory_limit)) return false;
    shapes_.emplace(reader.weight->tensor.reader, shape);
    return true;
  }

  Status score(std::size_t begin, std::size_t end, const std::set<std::string>& keys,
               const std::unordered_map<std::string, Node>& nodes) {
    std::map<std::string, Moments> moments;
    std::vector<PairTap> taps;
    for (const std::string& key : keys) {
      Moments& one = moments.emplace(key, Moments{shapes_.at(key), nullptr}).first->second;
      one.sums = std::make_unique<GramAccumulator>(one.shape, request_.positions, context_.seed);
      const Node& node = nodes.at(key);
      taps.push_back({std::string(node.output(0)), std::string(node.input(0)), one.sums.get()});
    }
    OP_TRY(context_.activations->collect_pairs(request_.model, request_.model, taps));
    std::vector<std::pair<Moments*, Node>> parts;
    for (auto& [key, one] : moments) parts.emplace_back(&one, nodes.at(key));
    OP_TRY(parallel_for(parts.size(), context_.jobs,
                        [&](std::size_t i) { return finish(*parts[i].first, parts[i].second); }));
    return parallel_for(end - begin, context_.jobs, [&](std::size_t i) -> Status {
      const UnitGroup& group = *groups_[begin + i];
      std::vector<ObsReader> readers = obs_readers(group, readers_[begin + i], moments);
      UnitScores& scores = scores_[begin + i];
      if (readers.empty()) {
        if (scores.note.empty()) scores.note = "the samples gave what reads its units no usable input";
        return {};
      }
      const double most = std::ceil(static_cast<double>(group.units) * std::min(1.0, request_.most));
      scores.of_unit = obs_costs(std::move(readers), group.units, static_cast<std::size_t>(most));
      scale_to_mean(scores.of_unit);
      scores.note.clear();
      return {};
    });
  }

  static constexpr std::uint64_t kMoments = std::uint64_t{1} << 30;  // bytes at a time without --memory-limit
  const ScoreRequest& request_;
  GroupList groups_;
  PassContext& context_;
  std::vector<UnitScores> scores_;
  std::vector<std::vector<Reader>> readers_;  // of each group
  std::map<std::string, PatchShape> shapes_;  // by reader_key()
};

}  // namespace

Result<std::vector<UnitScores>> activation_scores(const ScoreRequest& request, PassContext& context,
                                                  std::vector<UnitScores> otherwise) {
  const auto nodes = nodes_by_key(request.graph);
  const GroupList groups = request.list();
  std::vector<std::vector<Reader>> readers;
  StatsTable table;
  for (const UnitGroup* group : groups) {
    readers.push_back(readers_of(*group, nodes));
    for (const Reader& reader : readers.back()) {
      auto& stats = table[{reader.input->tensor.value, reader.input->axis}];
      if (!stats) stats = std::make_unique<ChannelStatsAccumulator>(static_cast<std::int64_t>(reader.input->axis));
    }
  }
  std::vector<Tap> taps;
  for (const auto& [value, stats] : table)
    taps.push_back({value.first, stats.get(), request.graph.kind() == Graph::Kind::main ? nullptr : &request.graph});
  if (!taps.empty()) OP_TRY(context.activations->collect(request.model, taps));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::size_t units = groups[g]->units;
    Doubles total(units);
    std::size_t counted = 0;
    for (const Reader& reader : readers[g]) {
      OP_LET(const Doubles scores, reader_scores(request, reader, units, table));
      if (scores.empty()) continue;
      ++counted;
      for (std::size_t u = 0; u < units; ++u) total[u] += scores[u];
    }
    if (counted == 0) {
      otherwise[g].note = "no layer that reads its units could be observed: by group_l2";
      continue;
    }
    scale_to_mean(total);
    otherwise[g] = {std::move(total), {}};
  }
  return otherwise;
}

Result<std::vector<UnitScores>> reader_obs_scores(const ScoreRequest& request, PassContext& context,
                                                  std::vector<UnitScores> otherwise) {
  return ObsScoring(request, context, std::move(otherwise)).run();
}

GroupList ScoreRequest::list() const {
  GroupList list;
  for (const std::size_t g : groups) list.push_back(&dependencies.groups()[g]);
  return list;
}

Result<std::vector<UnitScores>> score_units(const ScoreRequest& request, PassContext& context) {
  const ConstantReader read = [&](const TensorRef& constant) -> Result<Tensor> {
    OP_LET(std::optional<Tensor> tensor, request.graph.constant(constant.value));
    if (!tensor) return fail(Code::internal, "'{}' is no constant", constant.value);
    return std::move(*tensor);
  };
  using Criterion = StructuredOptions::Criterion;
  const bool with_data = request.criterion == Criterion::activation || request.criterion == Criterion::obs ||
                         request.criterion == Criterion::loss;
  WeightScoring scoring{.criterion = with_data ? Criterion::group_l2 : request.criterion,
                        .seed = context.seed,
                        .jobs = context.jobs,
                        .memory_limit = context.memory_limit};
  const GroupList groups = request.list();
  for (const UnitGroup* group : groups)
    for (const GroupMember& member : group->members)
      if (const auto type = request.graph.constant_type(member.tensor.value); type && member.tensor.is_constant())
        scoring.largest = std::max(scoring.largest, 4 * element_count(type->second).value_or(0));
  OP_LET(std::vector<UnitScores> scores, weight_scores(groups, read, scoring));
  if (!with_data) return scores;
  if (context.activations == nullptr) return fail(Code::usage, "this criterion needs --data");
  if (request.criterion == Criterion::loss) return loss_scores(request, context, std::move(scores));
  if (request.criterion == Criterion::obs) return reader_obs_scores(request, context, std::move(scores));
  OP_LET(scores, activation_scores(request, context, std::move(scores)));
  return wide_activation_scores(request, context, std::move(scores));
}

}  // namespace onnxpress
