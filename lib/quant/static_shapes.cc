#include "quant/static_shapes.h"

#include <memory>
#include <optional>
#include <vector>

namespace onnxpress {
namespace {

class TypeAccumulator : public Accumulator {
 public:
  std::any reduce(const TensorView& value) const override {
    return SeenType{value.dtype, {value.dims.begin(), value.dims.end()}};
  }
  void merge(std::any partial) override {
    if (!first_) first_ = std::any_cast<SeenType>(partial);
  }
  const std::optional<SeenType>& first() const { return first_; }

 private:
  std::optional<SeenType> first_;
};

}  // namespace

Result<SeenTypes> SeenTypes::look(const Model& model, std::span<const Read> reads, PassContext& context) {
  SeenTypes types;
  std::map<std::pair<const Graph*, std::string>, std::unique_ptr<TypeAccumulator>> unknown;
  std::vector<Tap> taps;
  for (const Read& read : reads) {
    const Graph* home = read.scope->scope_of(read.value);
    if (home == nullptr || types.seen_.contains({home, read.value}) || unknown.contains({home, read.value})) continue;
    const ValueType type = home->type(read.value);
    // A body may never run, whatever its shapes.
    const bool runs = home->kind() == Graph::Kind::main || context.activations == nullptr;
    if (const auto dims = type.static_shape(); dims && runs) {
      types.seen_[{home, read.value}] = {type.dtype, *dims};
      continue;
    }
    auto& accumulator = unknown[{home, read.value}];
    accumulator = std::make_unique<TypeAccumulator>();
    taps.push_back({read.value, accumulator.get(), home->kind() == Graph::Kind::main ? nullptr : home});
  }
  if (taps.empty()) return types;
  Status probed = fail(Code::unsupported, "no samples");
  if (context.activations != nullptr) probed = context.activations->probe(model, taps);
  if (!probed && probed.error().code != Code::unsupported) return std::unexpected(probed.error());
  for (const auto& [key, accumulator] : unknown) {
    if (probed) {
      if (accumulator->first()) types.seen_[key] = *accumulator->first();
      continue;
    }
    const ValueType type = key.first->type(key.second);
    if (!type.shape) continue;
    SeenType& seen = types.seen_[key];
    seen.dtype = type.dtype;
    for (const Dim& dim : *type.shape) seen.dims.push_back(dim.value.value_or(1));
  }
  return types;
}

const SeenType* SeenTypes::find(const Graph& scope, std::string_view value) const {
  const Graph* home = scope.scope_of(value);
  const auto found = seen_.find({home, std::string(value)});
  return found == seen_.end() ? nullptr : &found->second;
}

}  // namespace onnxpress
