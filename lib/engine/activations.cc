#include "engine/activations.h"

#include <map>
#include <utility>

#include "engine/tap_passes.h"

namespace onnxpress {
namespace {

// Values of the reference of collect_pairs that are kept between calls when there is no memory limit.
constexpr std::uint64_t kKeptValues = std::uint64_t{64} << 20;

// The values that a list of taps wants, each once, and who wants it.
struct Watch {
  std::vector<ObservedValue> values;
  std::vector<std::vector<std::size_t>> taps;  // of each value

  std::size_t add(const std::string& value, const Graph* scope, std::size_t tap) {
    const auto [found, added] = position_.try_emplace({scope, value}, values.size());
    if (added) {
      values.push_back({value, scope});
      taps.emplace_back();
    }
    taps[found->second].push_back(tap);
    return found->second;
  }

 private:
  std::map<std::pair<const Graph*, std::string>, std::size_t> position_;
};

Tensor copy_of(const TensorView& view) {
  return Tensor(view.dtype, {view.dims.begin(), view.dims.end()}, {view.bytes.begin(), view.bytes.end()});
}

// The source as if it ended after its first batch.
class FirstBatch : public SampleSource {
 public:
  explicit FirstBatch(SampleSource& source) : source_(source) {}
  Result<std::optional<Batch>> next() override {
    if (std::exchange(taken_, true)) return std::optional<Batch>();
    return source_.next();
  }
  Status rewind() override {
    taken_ = false;
    return source_.rewind();
  }
  std::size_t size() const override { return 1; }
  bool has_labels() const override { return source_.has_labels(); }
  bool synthetic() const override { return source_.synthetic(); }
  std::string description() const override { return source_.description(); }
  std::string digest() const override { return source_.digest(); }

 private:
  SampleSource& source_;
  bool taken_ = false;
};

}  // namespace

Status EngineActivations::collect(const Model& model, std::span<const Tap> taps) {
  if (taps.empty()) return {};
  Watch watch;
  for (std::size_t i = 0; i < taps.size(); ++i)
    watch.add(taps[i].value, taps[i].scope == &model.main() ? nullptr : taps[i].scope, i);
  OP_LET(const auto session, Session::open(model, {.observe = watch.values}));
  TapWork work{.label = "calibration", .taps = taps.size(), .inputs = session->inputs()};
  work.run = [&](std::size_t, std::span<const NamedTensor> inputs, Sink& sink) -> Status {
    return session->observe(inputs, [&](std::size_t index, const TensorView& value) -> Status {
      for (const std::size_t tap : watch.taps[index])
        if (sink.wants(tap, 0)) sink.give(tap, taps[tap].accumulator->reduce(value));
      return {};
    });
  };
  work.merge = [&](std::size_t tap, std::any partial) { taps[tap].accumulator->merge(std::move(partial)); };
  work.bytes = [&](std::size_t tap) { return taps[tap].accumulator->bytes(); };
  return run_passes(work, source_, jobs_, memory_limit_);
}

Status EngineActivations::collect_pairs(const Model& a, const Model& b, std::span<const PairTap> taps) {
  if (taps.empty()) return {};
  Watch watch_a, watch_b;
  std::vector<std::size_t> of_a;  // the value of `a` that a tap pairs
  for (std::size_t i = 0; i < taps.size(); ++i) {
    of_a.push_back(watch_a.add(taps[i].a, nullptr, i));
    watch_b.add(taps[i].b, nullptr, i);
  }
  OP_TRY(reference_.begin(a, watch_a.values, memory_limit_ == 0 ? kKeptValues : memory_limit_ / 4));
  OP_LET(const auto session_b, Session::open(b, {.observe = watch_b.values}));
  TapWork work{.label = "comparison", .taps = taps.size(), .inputs = session_b->inputs()};
  work.run = [&](std::size_t sample, std::span<const NamedTensor> inputs, Sink& sink) -> Status {
    ReferenceRuns::Values kept(watch_a.values.size());
    std::vector<std::size_t> readers(kept.size());
    std::vector<bool> wanted(taps.size());
    const auto keep = [&](std::size_t index, std::uint64_t bytes, const auto& make) {
      for (const std::size_t tap : watch_a.taps[index]) {
        wanted[tap] = sink.wants(tap, bytes);
        if (wanted[tap] && readers[index]++ == 0) kept[index] = make();
      }
    };
    if (const ReferenceRuns::Values* known = reference_.recorded(sample)) {
      for (std::size_t i = 0; i < kept.size(); ++i) keep(i, 0, [&] { return (*known)[i]; });
    } else {
      OP_TRY(reference_.session().observe(inputs, [&](std::size_t index, const TensorView& value) -> Status {
        keep(index, value.bytes.size(), [&] { return std::make_shared<const Tensor>(copy_of(value)); });
        return {};
      }));
      reference_.record(sample, kept);
    }
    return session_b->observe(inputs, [&](std::size_t index, const TensorView& value) -> Status {
      for (const std::size_t tap : watch_b.taps[index]) {
        if (!wanted[tap]) continue;
        const std::size_t pair = of_a[tap];
        sink.give(tap, taps[tap].accumulator->reduce(kept[pair]->view(), value));
        if (--readers[pair] == 0) kept[pair].reset();
      }
      return {};
    });
  };
  work.merge = [&](std::size_t tap, std::any partial) { taps[tap].accumulator->merge(std::move(partial)); };
  work.bytes = [&](std::size_t tap) { return taps[tap].accumulator->bytes(); };
  OP_TRY(run_passes(work, source_, jobs_, memory_limit_));
  reference_.end();
  return {};
}

Status EngineActivations::probe(const Model& model, std::span<const Tap> taps) {
  FirstBatch first(source_);
  return EngineActivations(first, 1, memory_limit_).collect(model, taps);
}

std::string EngineActivations::description() const {
  return source_.description() + (source_.synthetic() ? ", synthetic" : "");
}

}  // namespace onnxpress
