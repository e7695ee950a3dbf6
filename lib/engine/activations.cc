#include "engine/activations.h"

#include <algorithm>
#include <unordered_map>

#include "base/checked.h"
#include "base/parallel.h"
#include "base/progress.h"

namespace onnxpress {
namespace {

// A group of taps that is collected in one pass over the samples.
struct Group {
  std::vector<Tap> taps;
  unsigned jobs = 1;
};

std::vector<std::string> values_of(std::span<const Tap> taps) {
  std::vector<std::string> values;
  for (const Tap& tap : taps) values.push_back(tap.value);
  return values;
}

std::unordered_map<std::string, std::size_t> positions(const Session& session) {
  std::unordered_map<std::string, std::size_t> found;
  for (std::size_t i = 0; i < session.outputs().size(); ++i) found.emplace(session.outputs()[i].name, i);
  return found;
}

Result<Batch> first_batch(SampleSource& source) {
  OP_TRY(source.rewind());
  OP_LET(auto batch, source.next());
  if (!batch) return fail(Code::bad_input, "{}: no samples to calibrate with", source.description());
  return std::move(*batch);
}

// Bytes of each tapped value for one batch: from its type, symbols bound by the batch; what stays unknown is
// measured by one run that observes just those values.
Result<std::unordered_map<std::string, std::uint64_t>> tap_bytes(const Model& model, std::span<const Tap> taps,
                                                                 const Batch& batch) {
  std::unordered_map<std::string, std::int64_t> symbols;
  for (const NamedTensor& input : batch.inputs) {
    const ValueType type = model.main().type(input.name);
    if (!type.shape || type.shape->size() != input.tensor.dims().size()) continue;
    for (std::size_t i = 0; i < type.shape->size(); ++i)
      if (const Dim& dim = (*type.shape)[i]; !dim.value && !dim.symbol.empty())
        symbols.emplace(dim.symbol, input.tensor.dims()[i]);
  }
  const auto estimate = [&](const std::string& value) -> std::optional<std::uint64_t> {
    const ValueType type = model.main().type(value);
    if (!type.shape) return std::nullopt;
    Dims dims;
    for (const Dim& dim : *type.shape) {
      const auto bound = symbols.find(dim.symbol);
      if (!dim.value && (dim.symbol.empty() || bound == symbols.end())) return std::nullopt;
      dims.push_back(dim.value ? *dim.value : bound->second);
    }
    return byte_count(type.dtype, dims);
  };
  std::unordered_map<std::string, std::uint64_t> bytes;
  SessionOptions unknown;
  for (const Tap& tap : taps) {
    if (const auto known = estimate(tap.value))
      bytes[tap.value] = *known;
    else
      unknown.taps.push_back(tap.value);
  }
  if (unknown.taps.empty()) return bytes;
  OP_LET(const auto session, Session::open(model, unknown));
  OP_LET(const auto outputs, session->run(batch.inputs));
  const auto position = positions(*session);
  for (const std::string& value : unknown.taps) bytes[value] = outputs[position.at(value)].bytes().size();
  return bytes;
}

// Consecutive taps whose tensors fit the limit with `jobs` batches at work. A tap too large for that gets a group of
// its own and fewer batches side by side.
std::vector<Group> split(std::span<const Tap> taps, const std::unordered_map<std::string, std::uint64_t>& bytes,
                         unsigned jobs, std::uint64_t limit) {
  std::vector<Group> groups;
  std::uint64_t total = 0;
  for (const Tap& tap : taps) {
    const std::uint64_t mine = std::max<std::uint64_t>(bytes.at(tap.value), 1);
    const auto needed = checked_mul(checked_add(total, mine).value_or(limit), jobs);
    if (groups.empty() || !needed || *needed > limit) {
      const std::uint64_t side_by_side = std::clamp<std::uint64_t>(limit / mine, 1, jobs);
      groups.push_back({{}, static_cast<unsigned>(side_by_side)});
      total = 0;
    }
    groups.back().taps.push_back(tap);
    total += mine;
  }
  return groups;
}

struct Slot {
  Batch batch;
  std::vector<std::any> partials;
};

Status collect_group(const Model& model, SampleSource& source, const Group& group, Progress& progress) {
  OP_LET(const auto session, Session::open(model, {.taps = values_of(group.taps)}));
  const auto position = positions(*session);
  OP_TRY(source.rewind());
  std::size_t batches = 0;
  std::vector<Slot> slots(ordered_slots(group.jobs));
  OP_TRY(run_ordered(group.jobs, {.fetch = [&](std::size_t slot) -> Result<bool> {
                                    OP_LET(auto batch, source.next());
                                    if (!batch) return false;
                                    slots[slot] = {std::move(*batch), {}};
                                    ++batches;
                                    return true;
                                  },
                                  .work = [&](std::size_t slot) -> Status {
                                    OP_LET(const auto outputs, session->run(slots[slot].batch.inputs));
                                    for (const Tap& tap : group.taps)
                                      slots[slot].partials.push_back(
                                          tap.accumulator->reduce(outputs[position.at(tap.value)].view()));
                                    slots[slot].batch.inputs.clear();
                                    return {};
                                  },
                                  .commit = [&](std::size_t slot) -> Status {
                                    for (std::size_t i = 0; i < group.taps.size(); ++i)
                                      group.taps[i].accumulator->merge(std::move(slots[slot].partials[i]));
                                    progress.tick(slots[slot].batch.samples);
                                    slots[slot] = {};
                                    return {};
                                  }}));
  if (batches == 0) return fail(Code::bad_input, "{}: no samples to calibrate with", source.description());
  return {};
}

}  // namespace

Status EngineActivations::collect(const Model& model, std::span<const Tap> taps) {
  if (taps.empty()) return {};
  const unsigned jobs = jobs_ == 0 ? available_cores() : jobs_;
  std::vector<Group> groups;
  if (memory_limit_ == 0) {
    groups.push_back({{taps.begin(), taps.end()}, jobs});
  } else {
    OP_LET(const Batch batch, first_batch(source_));
    OP_LET(const auto bytes, tap_bytes(model, taps, batch));
    groups = split(taps, bytes, jobs, memory_limit_);
  }
  Progress progress("calibration", source_.size() * groups.size());
  for (const Group& group : groups) OP_TRY(collect_group(model, source_, group, progress));
  return {};
}

Status EngineActivations::collect_pairs(const Model& a, const Model& b, std::span<const PairTap> taps) {
  if (taps.empty()) return {};
  SessionOptions options_a, options_b;
  for (const PairTap& tap : taps) {
    options_a.taps.push_back(tap.a);
    options_b.taps.push_back(tap.b);
  }
  OP_LET(const auto session_a, Session::open(a, options_a));
  OP_LET(const auto session_b, Session::open(b, options_b));
  const auto position_a = positions(*session_a), position_b = positions(*session_b);
  OP_TRY(source_.rewind());
  const unsigned jobs = jobs_ == 0 ? available_cores() : jobs_;
  std::size_t batches = 0;
  std::vector<Slot> slots(ordered_slots(jobs));
  Progress progress("comparison", source_.size());
  OP_TRY(run_ordered(jobs, {.fetch = [&](std::size_t slot) -> Result<bool> {
                              OP_LET(auto batch, source_.next());
                              if (!batch) return false;
                              slots[slot] = {std::move(*batch), {}};
                              ++batches;
                              return true;
                            },
                            .work = [&](std::size_t slot) -> Status {
                              OP_LET(const auto outputs_a, session_a->run(slots[slot].batch.inputs));
                              OP_LET(const auto outputs_b, session_b->run(slots[slot].batch.inputs));
                              for (const PairTap& tap : taps)
                                slots[slot].partials.push_back(
                                    tap.accumulator->reduce(outputs_a[position_a.at(tap.a)].view(),
                                                            outputs_b[position_b.at(tap.b)].view()));
                              slots[slot].batch.inputs.clear();
                              return {};
                            },
                            .commit = [&](std::size_t slot) -> Status {
                              for (std::size_t i = 0; i < taps.size(); ++i)
                                taps[i].accumulator->merge(std::move(slots[slot].partials[i]));
                              progress.tick(slots[slot].batch.samples);
                              slots[slot] = {};
                              return {};
                            }}));
  if (batches == 0) return fail(Code::bad_input, "{}: no samples to compare with", source_.description());
  return {};
}

std::string EngineActivations::description() const {
  return source_.description() + (source_.synthetic() ? ", synthetic" : "");
}

}  // namespace onnxpress
