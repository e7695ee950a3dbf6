#include "engine/tap_passes.h"

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "base/progress.h"
#include "data/single_samples.h"

namespace onnxpress {
namespace {

enum class State : unsigned char { waiting, active, done };

std::uint64_t bytes_of(const Batch& batch) {
  std::uint64_t bytes = 0;
  for (const NamedTensor& input : batch.inputs) bytes += input.tensor.bytes().size();
  return bytes;
}

// Collects the partials of one run for the commit stage.
class Partials final : public Sink {
 public:
  explicit Partials(const std::vector<State>& states) : states_(states) {}
  bool wants(std::size_t tap, std::uint64_t) override { return states_[tap] == State::active; }
  void give(std::size_t tap, std::any partial) override { all_.emplace_back(tap, std::move(partial)); }
  void merge_into(const TapWork& work) {
    for (auto& [tap, partial] : all_) work.merge(tap, std::move(partial));
    all_.clear();
  }

 private:
  const std::vector<State>& states_;
  std::vector<std::pair<std::size_t, std::any>> all_;
};

// What serving taps costs with so many samples side by side. Accumulator::bytes() counts the accumulator and one
// partial, about half each; a partial lives until its sample is committed, and a value in a loop makes several.
struct Need {
  std::uint64_t accumulators = 0;
  std::uint64_t partials = 0;  // of one sample
  std::uint64_t extra = 0;     // kept by one run
  std::uint64_t sample = 0;

  std::uint64_t with(unsigned jobs) const {
    const std::uint64_t slots = ordered_slots(jobs);
    return accumulators + (partials + sample) * slots + extra * jobs;
  }
};

// Takes in the taps of the first sample as long as they fit, and merges at once.
class Admission final : public Sink {
 public:
  Admission(const TapWork& work, std::vector<State>& states, std::uint64_t sample, unsigned jobs, std::uint64_t limit)
      : work_(work),
        states_(states),
        need_{.sample = sample},
        jobs_(jobs),
        limit_(limit),
        refused_(states.size()),
        gives_(states.size()) {}

  bool wants(std::size_t tap, std::uint64_t extra) override {
    if (states_[tap] != State::waiting || refused_[tap]) return states_[tap] == State::active;
    Need with = need_;
    with.accumulators += half(tap);
    with.partials += half(tap);
    with.extra += extra;
    if (any_ && std::max(with.with(jobs_), need_.with(jobs_) + 1) > limit_) {
      refused_[tap] = true;
      return false;
    }
    any_ = true;
    states_[tap] = State::active;
    need_ = with;
    return true;
  }

  void give(std::size_t tap, std::any partial) override {
    const std::uint64_t before = half(tap);
    work_.merge(tap, std::move(partial));
    need_.accumulators += half(tap) - before;
    need_.partials += half(tap) * (gives_[tap] + 1) - before * std::max<std::uint64_t>(gives_[tap], 1);
    ++gives_[tap];
  }

  // A tap this sample has not shown (in a branch not taken) comes along: its size is not known.
  void finish() {
    for (std::size_t tap = 0; tap < states_.size(); ++tap)
      if (states_[tap] == State::waiting && !refused_[tap]) states_[tap] = State::active;
  }

  unsigned jobs_that_fit() const {
    unsigned jobs = jobs_;
    while (jobs > 1 && need_.with(jobs) > limit_) --jobs;
    return jobs;
  }

 private:
  std::uint64_t half(std::size_t tap) const { return work_.bytes(tap) / 2; }

  const TapWork& work_;
  std::vector<State>& states_;
  Need need_;
  unsigned jobs_;
  std::uint64_t limit_;
  std::vector<bool> refused_;
  std::vector<std::uint64_t> gives_;  // so far
  bool any_ = false;
};

class Passes {
 public:
  Passes(const TapWork& work, SampleSource& source, unsigned jobs, std::uint64_t limit)
      : work_(work), source_(source), jobs_(jobs), limit_(limit), samples_(source, work.inputs) {}

  Status all() {
    states_.assign(work_.taps, limit_ == 0 ? State::active : State::waiting);
    for (std::size_t count = 1; std::ranges::contains(states_, State::waiting) || count == 1; ++count)
      OP_TRY(one(count));
    return {};
  }

 private:
  struct Slot {
    std::size_t sample = 0;
    std::optional<Batch> batch;
    std::optional<Partials> partials;
  };

  Status one(std::size_t count) {
    Progress progress(count == 1 ? work_.label : work_.label + ", pass " + std::to_string(count), source_.size());
    OP_TRY(samples_.rewind());
    OP_LET(std::optional<Batch> first, samples_.next());
    if (!first) return fail(Code::bad_input, "{}: no samples for {}", source_.description(), work_.label);
    unsigned jobs = jobs_;
    if (limit_ != 0) {
      Admission admission(work_, states_, bytes_of(*first), jobs, limit_);
      OP_TRY(work_.run(0, first->inputs, admission));
      admission.finish();
      jobs = admission.jobs_that_fit();
      progress.tick(first->samples);
      first.reset();
    }
    OP_TRY(rest(std::move(first), jobs, progress));
    std::ranges::replace(states_, State::active, State::done);
    return {};
  }

  Status rest(std::optional<Batch> first, unsigned jobs, Progress& progress) {
    std::vector<Slot> slots(ordered_slots(jobs));
    std::size_t next = first ? 0 : 1;
    const auto fetch = [&](std::size_t slot) -> Result<bool> {
      std::optional<Batch> batch = std::exchange(first, std::nullopt);
      if (!batch) {
        OP_LET(batch, samples_.next());
      }
      slots[slot].sample = next++;
      slots[slot].partials.emplace(states_);
      slots[slot].batch = std::move(batch);
      return slots[slot].batch.has_value();
    };
    const auto work = [&](std::size_t slot) -> Status {
      OP_TRY(work_.run(slots[slot].sample, slots[slot].batch->inputs, *slots[slot].partials));
      slots[slot].batch->inputs.clear();
      return {};
    };
    const auto commit = [&](std::size_t slot) -> Status {
      slots[slot].partials->merge_into(work_);
      progress.tick(slots[slot].batch->samples);
      slots[slot].batch.reset();
      return {};
    };
    return run_ordered(jobs, {.fetch = fetch, .work = work, .commit = commit});
  }

  const TapWork& work_;
  SampleSource& source_;
  unsigned jobs_;
  std::uint64_t limit_;
  SingleSamples samples_;
  std::vector<State> states_;
};

}  // namespace

Status run_passes(const TapWork& work, SampleSource& source, unsigned jobs, std::uint64_t limit) {
  return Passes(work, source, jobs == 0 ? available_cores() : jobs, limit).all();
}

}  // namespace onnxpress
