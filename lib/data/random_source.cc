// Invented samples, for speed measurements and smoke tests; only when the user types them.
#include <algorithm>
#include <charconv>

#include "base/hash.h"
#include "base/text.h"
#include "data/fit.h"
#include "data/sources.h"

namespace onnxpress {
namespace {

constexpr std::string_view kPrefix = "random:";
constexpr std::size_t kDefaultSamples = 32;

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), used as a function
// of the counter.
std::uint64_t mix(std::uint64_t key, std::uint64_t counter) {
  std::uint64_t z = key + (counter + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

std::uint64_t key_of(std::uint64_t seed, std::string_view name, std::size_t sample) {
  std::uint64_t key = mix(seed, name.size());
  for (const char c : name) key = mix(key, static_cast<unsigned char>(c));
  return mix(key, sample);
}

struct RandomInput {
  ValueInfo info;
  Dims dims;
};

class RandomSource final : public SampleSource {
 public:
  RandomSource(std::vector<RandomInput> inputs, std::uint64_t seed, std::size_t samples, std::string description)
      : inputs_(std::move(inputs)), seed_(seed), samples_(samples), description_(std::move(description)) {}

  Result<std::optional<Batch>> next() override {
    if (done_ == samples_) return std::nullopt;
    Batch batch;
    for (const RandomInput& input : inputs_) {
      OP_LET(Tensor tensor, make(input));
      batch.inputs.push_back({input.info.name, std::move(tensor)});
    }
    ++done_;
    return batch;
  }
  Status rewind() override {
    done_ = 0;
    return {};
  }
  std::size_t size() const override { return samples_; }
  bool has_labels() const override { return false; }
  bool synthetic() const override { return true; }
  std::string description() const override { return description_; }
  std::string digest() const override { return Hasher().add(fmt::format("{}seed={}", kPrefix, seed_)).hex(); }

 private:
  Result<Tensor> make(const RandomInput& input) const {
    const std::uint64_t key = key_of(seed_, input.info.name, done_);
    const DType dtype = input.info.type.dtype;
    if (is_float(dtype)) {
      Tensor tensor(DType::f32, input.dims);
      std::uint64_t counter = 0;
      for (float& value : tensor.as_mutable<float>())
        value = static_cast<float>(mix(key, counter++) >> 40) * 0x1p-23F - 1.0F;
      return fit_tensor(std::move(tensor), input.info);
    }
    Tensor tensor(DType::u8, input.dims);
    std::uint64_t counter = 0;
    for (std::uint8_t& value : tensor.as_mutable<std::uint8_t>())
      value = static_cast<std::uint8_t>(mix(key, counter++) >> 63);
    if (dtype == DType::boolean) {
      const auto bytes = tensor.bytes();
      return Tensor(DType::boolean, input.dims, std::vector<std::byte>(bytes.begin(), bytes.end()));
    }
    return fit_tensor(std::move(tensor), input.info);
  }

  std::vector<RandomInput> inputs_;
  std::uint64_t seed_;
  std::size_t samples_;
  std::size_t done_ = 0;
  std::string description_;
};

Result<std::uint64_t> parse_seed(std::string_view path) {
  const std::string_view text = path.substr(kPrefix.size());
  constexpr std::string_view key = "seed=";
  std::uint64_t seed = 0;
  if (text.starts_with(key)) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + key.size(), end, seed);
    if (error == std::errc() && stop == end) return seed;
  }
  return fail(Code::usage, "'{}': random data are written random:seed=N, with a whole number N", path);
}

// Free dimensions become 1; they are listed in `freed`.
Result<RandomInput> make_input(const ValueInfo& info, std::vector<std::string>& freed) {
  const std::string name = escape_control(info.name);
  const DType dtype = info.type.dtype;
  if (!info.type.is_tensor || !(is_float(dtype) || is_integer(dtype) || dtype == DType::boolean))
    return fail(Code::bad_input, "input '{}' is no tensor of numbers; random data cannot feed it", name);
  if (!info.type.shape) return fail(Code::bad_input, "input '{}' has no known rank; random data cannot feed it", name);
  RandomInput input{info, {}};
  for (std::size_t axis = 0; axis < info.type.shape->size(); ++axis) {
    const Dim& dim = (*info.type.shape)[axis];
    input.dims.push_back(dim.value.value_or(1));
    if (!dim.value)
      freed.push_back(
          fmt::format("{}[{}]", name, dim.symbol.empty() ? std::to_string(axis) : escape_control(dim.symbol)));
  }
  OP_TRY(allocation_bytes(is_float(dtype) ? DType::f32 : dtype, input.dims, "input '" + name + "'"));
  return input;
}

}  // namespace

SourceResult open_random_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  OP_LET(const std::uint64_t seed, parse_seed(options.path));
  const std::size_t samples = options.samples.value_or(kDefaultSamples);
  OP_TRY(wanted_samples(options, samples, options.path));
  std::vector<RandomInput> made;
  std::vector<std::string> freed;
  for (const ValueInfo& info : inputs) {
    OP_LET(RandomInput input, make_input(info, freed));
    made.push_back(std::move(input));
  }
  const std::string note = freed.empty() ? "" : "; free dimensions set to 1: " + join(freed, ", ");
  return std::make_unique<RandomSource>(
      std::move(made), seed, samples,
      fmt::format("random:seed={} (synthetic, {}{})", seed, samples_text(samples, samples), note));
}

}  // namespace onnxpress
