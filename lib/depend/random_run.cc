#include "depend/random_run.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <ranges>

#include "base/text.h"

namespace onnxpress {
namespace {

// Of free dimensions behind the first of an input: small ones first, then what images and audio need.
constexpr std::array<std::int64_t, 8> kSizes = {8, 64, 224, 32, 16, 512, 2, 1};
constexpr std::uint64_t kLargestInput = std::uint64_t{1} << 28;  // elements

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

struct Sizing {
  std::int64_t size = 1;
  bool first_input_only = false;  // what else is free is a batch, as of the state of a recurrent network
};

// Sizes for the free dimensions of a model.
class FreeDims {
 public:
  explicit FreeDims(Sizing sizing) : sizing_(sizing) {}

  // A first dimension is a batch: 1 is enough.
  std::int64_t size(const Dim& dim, std::size_t input, std::size_t axis) {
    const bool batch = axis == 0 || (input > 0 && sizing_.first_input_only);
    const std::int64_t fallback = batch ? 1 : sizing_.size;
    if (dim.symbol.empty()) return fallback;
    if (const auto known = sizes_.find(dim.symbol); known != sizes_.end()) return known->second;
    const std::int64_t size = sum(dim.symbol).value_or(fallback);
    sizes_[dim.symbol] = size;
    return size;
  }
  // Before any sum of symbols is asked for.
  void learn(const Dim& dim, std::size_t input, std::size_t axis) {
    if (!dim.value && !dim.symbol.contains('+')) size(dim, input, axis);
  }

 private:
  // "past_length + 1"
  std::optional<std::int64_t> sum(const std::string& symbol) const {
    if (!symbol.contains('+')) return std::nullopt;
    std::int64_t total = 0;
    for (const std::string& part : split(symbol, '+')) {
      const std::string term(trim(part));
      if (const auto known = sizes_.find(term); known != sizes_.end()) {
        total += known->second;
        continue;
      }
      std::int64_t number = 0;
      const auto [stop, error] = std::from_chars(term.data(), term.data() + term.size(), number);
      if (error != std::errc() || stop != term.data() + term.size() || number < 0 || number > 1024) return std::nullopt;
      total += number;
    }
    return total;
  }

  Sizing sizing_;
  std::map<std::string, std::int64_t> sizes_;
};

Result<Tensor> random_tensor(DType dtype, const Dims& dims, Random& random) {
  if (is_float(dtype)) {
    Tensor tensor(DType::f32, dims);
    for (float& value : tensor.as_mutable<float>()) value = static_cast<float>(random.next() >> 40) * 0x1p-23F - 1.0F;
    return dtype == DType::f32 ? tensor : convert(tensor.view(), dtype);
  }
  Tensor tensor(DType::i64, dims);
  for (std::int64_t& value : tensor.as_mutable<std::int64_t>()) value = static_cast<std::int64_t>(random.next() >> 63);
  if (dtype != DType::boolean) return convert(tensor.view(), dtype);
  Tensor flags(DType::boolean, dims);
  std::ranges::transform(tensor.as<std::int64_t>(), flags.as_mutable<std::uint8_t>().begin(),
                         [](std::int64_t value) { return static_cast<std::uint8_t>(value); });
  return flags;
}

std::vector<std::string> free_inputs(const Graph& graph) {
  std::vector<std::string> names = graph.inputs();
  std::erase_if(names, [&](const std::string& name) { return bool(graph.initializer(name)); });
  return names;
}

Status check_inputs(const Graph& graph, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const ValueType type = graph.type(name);
    const bool numbers = is_float(type.dtype) || is_integer(type.dtype) || type.dtype == DType::boolean;
    if (!type.is_tensor || !numbers || !type.shape)
      return fail(Code::unsupported, "input '{}' has no random values", escape_control(name));
  }
  return {};
}

bool is_switch(const ValueType& type) {
  const auto shape = type.static_shape();
  return shape && element_count(*shape) == 1 && (is_integer(type.dtype) || type.dtype == DType::boolean);
}

// The integer that an input is compared with.
std::optional<std::int64_t> compared_with(const Graph& graph, const std::string& input) {
  for (const Use& use : graph.uses(input)) {
    if (!use.node || use.captured || !use.node.is("Equal")) continue;
    const auto constant = graph.constant(use.node.input(1 - use.slot));
    if (!constant || !*constant || (*constant)->size() != 1) continue;
    if (const auto number = to_int64s((*constant)->view())) return number->front();
  }
  return std::nullopt;
}

Result<Tensor> switched_value(const Graph& graph, const std::string& name, const Tensor& drawn) {
  OP_LET(std::vector<std::int64_t> numbers, to_int64s(drawn.view()));
  numbers.front() = compared_with(graph, name).value_or(1 - numbers.front());
  if (drawn.dtype() == DType::boolean) {
    const auto flag = static_cast<std::uint8_t>(numbers.front() != 0);
    return Tensor::of<std::uint8_t>(DType::boolean, drawn.dims(), std::span(&flag, 1));
  }
  return convert(Tensor::of_int64s(drawn.dims(), numbers).view(), drawn.dtype());
}

Result<std::vector<NamedTensor>> random_inputs(const Graph& graph, const std::vector<std::string>& names, Sizing sizing,
                                               std::uint64_t seed, bool switched) {
  FreeDims free(sizing);
  for (std::size_t k = 0; k < names.size(); ++k) {
    const auto shape = *graph.type(names[k]).shape;
    for (std::size_t i = 0; i < shape.size(); ++i) free.learn(shape[i], k, i);
  }
  std::vector<NamedTensor> inputs;
  for (std::size_t k = 0; k < names.size(); ++k) {
    const ValueType type = graph.type(names[k]);
    Dims dims;
    for (std::size_t i = 0; i < type.shape->size(); ++i) {
      const Dim& dim = (*type.shape)[i];
      dims.push_back(dim.value ? *dim.value : free.size(dim, k, i));
    }
    if (element_count(dims).value_or(kLargestInput) >= kLargestInput)
      return fail(Code::unsupported, "input '{}' is too large", escape_control(names[k]));
    Random random(seed + k);
    OP_LET(Tensor tensor, random_tensor(type.dtype, dims, random));
    if (switched && is_switch(type)) {
      OP_LET(tensor, switched_value(graph, names[k], tensor));
    }
    inputs.push_back({names[k], std::move(tensor)});
  }
  return inputs;
}

// What to try, one after the other.
std::vector<Sizing> sizings(const Graph& graph, const std::vector<std::string>& names) {
  const auto free = [&](const std::string& name) { return !graph.type(name).static_shape(); };
  if (std::ranges::none_of(names, free)) return {Sizing()};
  std::vector<Sizing> all;
  for (const std::int64_t size : kSizes) {
    all.push_back({size, false});
    if (std::ranges::any_of(names | std::views::drop(1), free)) all.push_back({size, true});
  }
  return all;
}

double float_distance(std::span<const float> a, std::span<const float> b) {
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    if (!std::isfinite(x) || !std::isfinite(y)) {
      const bool same = x == y || (std::isnan(x) && std::isnan(y));
      if (!same) return std::numeric_limits<double>::infinity();
      continue;
    }
    largest = std::max(largest, std::abs(x));
    difference = std::max(difference, std::abs(x - y));
  }
  if (difference == 0) return 0;
  return largest == 0 ? std::numeric_limits<double>::infinity() : difference / largest;
}

double tensor_distance(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.dims() != b.dims()) return std::numeric_limits<double>::infinity();
  if (is_float(a.dtype())) {
    const auto x = to_floats(a.view()), y = to_floats(b.view());
    return x && y ? float_distance(*x, *y) : 0;
  }
  const auto x = to_int64s(a.view()), y = to_int64s(b.view());
  if (!x || !y || x->empty()) return 0;
  std::size_t different = 0;
  for (std::size_t i = 0; i < x->size(); ++i) different += (*x)[i] != (*y)[i] ? 1 : 0;
  return static_cast<double>(different) / static_cast<double>(x->size());
}

}  // namespace

bool has_switches(const Model& model) {
  const Graph& graph = model.main();
  return std::ranges::any_of(free_inputs(graph), [&](const std::string& name) { return is_switch(graph.type(name)); });
}

Result<RandomRun> run_randomly(const Model& model, Runner& runner, std::uint64_t seed, bool switched) {
  const Graph& graph = model.main();
  const std::vector<std::string> names = free_inputs(graph);
  OP_TRY(check_inputs(graph, names));
  std::optional<Error> error;
  for (const Sizing& sizing : sizings(graph, names)) {
    OP_LET(std::vector<NamedTensor> inputs, random_inputs(graph, names, sizing, seed, switched));
    auto outputs = runner.run(model, inputs);
    if (outputs) return RandomRun{std::move(inputs), std::move(*outputs)};
    if (!error) error = std::move(outputs).error();  // that of the first size says most
  }
  return std::unexpected(std::move(*error));
}

double distance(std::span<const Tensor> a, std::span<const Tensor> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, tensor_distance(a[i], b[i]));
  return largest;
}

bool all_finite(std::span<const Tensor> tensors) {
  return std::ranges::all_of(tensors, [](const Tensor& tensor) {
    if (!is_float(tensor.dtype())) return true;
    const auto values = to_floats(tensor.view());
    return !values || std::ranges::all_of(*values, [](float value) { return std::isfinite(value); });
  });
}

}  // namespace onnxpress
