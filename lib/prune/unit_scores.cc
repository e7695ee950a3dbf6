#include "prune/unit_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <random>

#include "base/parallel.h"
#include "num/linalg.h"
#include "num/quantize.h"

namespace onnxpress {
namespace {

using Criterion = StructuredOptions::Criterion;
using Doubles = std::vector<double>;

enum class Measure { l1, l2, distance };

// One member of one group, and what its slices are measured with.
struct Task {
  std::size_t group = 0, member = 0;
  Measure measure = Measure::l2;
};

// What a criterion looks at: the members of `made` and of `read`, each set by its own mean.
struct Plan {
  std::vector<std::size_t> made, read;
  Measure measure = Measure::l2;
  std::string note = {};
};

std::vector<std::size_t> constants_of(const UnitGroup& group, std::initializer_list<AxisRole> roles) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < group.members.size(); ++i) {
    const GroupMember& member = group.members[i];
    if (member.tensor.is_constant() && std::ranges::contains(roles, member.role)) found.push_back(i);
  }
  return found;
}

Plan plan_of(const UnitGroup& group, Criterion criterion) {
  Plan plan;
  if (criterion == Criterion::bn_gamma) {
    plan.made = constants_of(group, {AxisRole::scales});
    plan.measure = Measure::l1;
    if (!plan.made.empty()) return plan;
    plan.measure = Measure::l2;
    plan.note = "no normalization scales its units: by l2";
  }
  if (criterion == Criterion::l1) plan.measure = Measure::l1;
  if (criterion == Criterion::fpgm) plan.measure = Measure::distance;
  plan.made = constants_of(group, {AxisRole::produces});
  if (criterion == Criterion::group_l2) plan.read = constants_of(group, {AxisRole::consumes});
  if (plan.made.empty() && plan.read.empty()) plan.made = constants_of(group, {AxisRole::consumes});
  if (plan.made.empty() && plan.read.empty()) {
    plan.made = constants_of(group, {AxisRole::bias, AxisRole::scales, AxisRole::follows});
    plan.note = plan.made.empty() ? "it has no weights: by position" : "no linear weight makes or reads its units";
  }
  return plan;
}

// Sums over all elements of every index of the axis.
Doubles axis_sums(std::span<const float> w, const AxisLayout& layout, bool squares) {
  Doubles sums(layout.channels);
  for (std::size_t o = 0; o < layout.outer; ++o)
    for (std::size_t c = 0; c < layout.channels; ++c) {
      const auto run = w.subspan((o * layout.channels + c) * layout.inner, layout.inner);
      double sum = 0;
      for (const float value : run) {
        const double v = static_cast<double>(value);
        sum += squares ? v * v : std::abs(v);
      }
      sums[c] += sum;
    }
  return sums;
}

// For every unit the sum of the distances of its slice to those of the others.
Doubles distances(std::span<const float> w, const AxisLayout& layout, const GroupMember& member, std::size_t units) {
  const std::size_t length = member.per_unit * layout.outer * layout.inner;
  Doubles slices;
  slices.reserve(units * length);
  for (const std::uint32_t index : member.indices)
    for (std::size_t o = 0; o < layout.outer; ++o)
      for (const float value : w.subspan((o * layout.channels + index) * layout.inner, layout.inner))
        slices.push_back(static_cast<double>(value));
  Doubles products(units * units);
  gemm({.m = units, .n = units, .k = length, .transpose_b = true}, 1, slices, slices, 0, products);
  Doubles sums(units);
  for (std::size_t i = 0; i < units; ++i)
    for (std::size_t j = 0; j < units; ++j) {
      const double square = products[i * units + i] + products[j * units + j] - 2 * products[i * units + j];
      if (i != j) sums[i] += std::sqrt(std::max(0.0, square));
    }
  return sums;
}

Doubles measure_units(std::span<const float> w, const Dims& dims, const UnitGroup& group, const GroupMember& member,
                      Measure measure, std::map<std::pair<std::size_t, Measure>, Doubles>& sums) {
  const auto layout = axis_layout(dims, static_cast<std::int64_t>(member.axis));
  assert(layout && member.indices.size() == group.units * member.per_unit);
  if (measure == Measure::distance) return distances(w, *layout, member, group.units);
  const auto [place, fresh] = sums.try_emplace({member.axis, measure});
  if (fresh) place->second = axis_sums(w, *layout, measure == Measure::l2);
  Doubles of_unit(group.units);
  for (std::size_t i = 0; i < member.indices.size(); ++i)
    of_unit[i / member.per_unit] += place->second[member.indices[i]];
  if (measure == Measure::l2)
    for (double& value : of_unit) value = std::sqrt(value);
  return of_unit;
}

// All tasks on one constant, whoever reads it: it is read once.
using Work = std::pair<TensorRef, std::vector<Task>>;

Result<std::vector<Doubles>> run_tasks(const Work& work, const GroupList& groups, const ConstantReader& read) {
  OP_LET(const Tensor tensor, read(work.first));
  auto floats = to_floats(tensor.view());
  if (!floats) return rethrow(std::move(floats).error(), "constant '" + work.first.value + "'");
  std::map<std::pair<std::size_t, Measure>, Doubles> sums;
  std::vector<Doubles> results;
  for (const Task& task : work.second) {
    const UnitGroup& group = *groups[task.group];
    Doubles values = measure_units(*floats, tensor.dims(), group, group.members[task.member], task.measure, sums);
    for (double& value : values)
      if (!std::isfinite(value)) value = 0;
    scale_to_mean(values);
    results.push_back(std::move(values));
  }
  return results;
}

// A generator of its own for every group: what another group is called or does changes nothing.
Doubles random_scores(const UnitGroup& group, std::uint64_t seed) {
  std::uint64_t hash = 14695981039346656037U ^ seed;  // FNV-1a
  for (const char c : group.name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  std::mt19937_64 random(hash);
  Doubles scores(group.units);
  for (double& score : scores) score = static_cast<double>(random() >> 11) * 0x1p-53;
  return scores;
}

Doubles mean_of(const std::vector<std::size_t>& members, const std::map<std::size_t, Doubles>& values,
                std::size_t units) {
  Doubles mean(units);
  for (const std::size_t member : members)
    for (std::size_t u = 0; u < units; ++u) mean[u] += values.at(member)[u] / static_cast<double>(members.size());
  return mean;
}

}  // namespace

void scale_to_mean(std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  if (!(sum > 0)) return;
  for (double& value : values) value *= static_cast<double>(values.size()) / sum;
}

std::unordered_map<std::string, Node> nodes_by_key(const Graph& graph) {
  std::unordered_map<std::string, Node> nodes;
  for (const Node& node : graph.nodes()) nodes.emplace(reader_key(node), node);
  return nodes;
}

Result<std::vector<UnitScores>> weight_scores(const GroupList& groups, const ConstantReader& read,
                                              const WeightScoring& scoring) {
  std::vector<UnitScores> scores(groups.size());
  std::vector<Plan> plans(groups.size());
  std::map<std::string, Work> by_constant;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (scoring.criterion == Criterion::random) {
      scores[g].of_unit = random_scores(*groups[g], scoring.seed);
      scale_to_mean(scores[g].of_unit);
      continue;
    }
    plans[g] = plan_of(*groups[g], scoring.criterion);
    scores[g].note = plans[g].note;
    for (const auto* members : {&plans[g].made, &plans[g].read})
      for (const std::size_t m : *members) {
        const TensorRef& tensor = groups[g]->members[m].tensor;
        Work& work = by_constant.try_emplace(tensor.value, tensor, std::vector<Task>()).first->second;
        work.second.push_back({g, m, plans[g].measure});
      }
  }
  if (scoring.criterion == Criterion::random) return scores;

  std::vector<const Work*> works;
  for (const auto& [name, work] : by_constant) works.push_back(&work);
  std::vector<std::map<std::size_t, Doubles>> measured(groups.size());
  OP_TRY(execute_and_commit<std::vector<Doubles>>(
      works.size(), weight_jobs(scoring.jobs, 2 * scoring.largest, scoring.memory_limit),
      [&](std::size_t i) { return run_tasks(*works[i], groups, read); },
      [&](std::size_t i, std::vector<Doubles> results) -> Status {
        for (std::size_t t = 0; t < results.size(); ++t) {
          const Task& task = works[i]->second[t];
          measured[task.group][task.member] = std::move(results[t]);
        }
        return {};
      },
      "scores"));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::size_t units = groups[g]->units;
    Doubles& total = scores[g].of_unit;
    total = mean_of(plans[g].made, measured[g], units);
    const Doubles readers = mean_of(plans[g].read, measured[g], units);
    for (std::size_t u = 0; u < units; ++u) total[u] += readers[u];
    scale_to_mean(total);
  }
  return scores;
}

}  // namespace onnxpress
