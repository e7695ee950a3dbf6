#include "engine/activations.h"

#include <map>
#include <utility>

#include "engine/tap_passes.h"

namespace onnxpress {
namespace {

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
  work.run = [&](std::span<const NamedTensor> inputs, Sink& sink) -> Status {
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
  OP_LET(const auto session_a, Session::open(a, {.observe = watch_a.values}));
  OP_LET(const auto session_b, Session::open(b, {.observe = watch_b.values}));
  struct Kept {
    Tensor tensor;
    std::size_t readers = 0;
  };
  TapWork work{.label = "comparison", .taps = taps.size(), .inputs = session_a->inputs()};
  work.run = [&](std::span<const NamedTensor> inputs, Sink& sink) -> Status {
    std::vector<Kept> kept(watch_a.values.size());
    std::vector<bool> wanted(taps.size());
    OP_TRY(session_a->observe(inputs, [&](std::size_t index, const TensorView& value) -> Status {
      for (const std::size_t tap : watch_a.taps[index]) {
        wanted[tap] = sink.wants(tap, value.bytes.size());
        if (wanted[tap] && kept[index].readers++ == 0) kept[index].tensor = copy_of(value);
      }
      return {};
    }));
    return session_b->observe(inputs, [&](std::size_t index, const TensorView& value) -> Status {
      for (const std::size_t tap : watch_b.taps[index]) {
        if (!wanted[tap]) continue;
        Kept& pair = kept[of_a[tap]];
        sink.give(tap, taps[tap].accumulator->reduce(pair.tensor.view(), value));
        if (--pair.readers == 0) pair = {};
      }
      return {};
    });
  };
  work.merge = [&](std::size_t tap, std::any partial) { taps[tap].accumulator->merge(std::move(partial)); };
  work.bytes = [&](std::size_t tap) { return taps[tap].accumulator->bytes(); };
  return run_passes(work, source_, jobs_, memory_limit_);
}

Status EngineActivations::probe(const Model& model, std::span<const Tap> taps) {
  FirstBatch first(source_);
  return EngineActivations(first, 1, memory_limit_).collect(model, taps);
}

std::string EngineActivations::description() const {
  return source_.description() + (source_.synthetic() ? ", synthetic" : "");
}

}  // namespace onnxpress
