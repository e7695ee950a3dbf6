// Invented samples, for speed measurements and smoke tests; only when the user types them.
#include <algorithm>
#include <charconv>
#include <cmath>

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

// What was typed behind an input's name.
struct Wish {
  std::string input;
  std::optional<Dims> dims;
  std::optional<double> low, high;
};

struct RandomInput {
  ValueInfo info;
  Dims dims;
  double low = 0, high = 0;  // floats in [low, high), integers in low..high
};

class RandomSource final : public SampleSource {
 public:
  RandomSource(std::vector<RandomInput> inputs, std::uint64_t seed, std::size_t samples, std::string path,
               std::string description)
      : inputs_(std::move(inputs)),
        seed_(seed),
        samples_(samples),
        path_(std::move(path)),
        description_(std::move(description)) {}

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
  std::string digest() const override { return Hasher().add(path_).hex(); }

 private:
  Result<Tensor> make(const RandomInput& input) const {
    const std::uint64_t key = key_of(seed_, input.info.name, done_);
    const DType dtype = input.info.type.dtype;
    std::uint64_t counter = 0;
    if (is_float(dtype)) {
      Tensor tensor(DType::f32, input.dims);
      const auto low = static_cast<float>(input.low), span = static_cast<float>(input.high - input.low);
      for (float& value : tensor.as_mutable<float>())
        value = static_cast<float>(mix(key, counter++) >> 40) * 0x1p-24F * span + low;
      return fit_tensor(std::move(tensor), input.info);
    }
    Tensor tensor(DType::i64, input.dims);
    const auto low = static_cast<std::int64_t>(input.low);
    const std::uint64_t choices = static_cast<std::uint64_t>(static_cast<std::int64_t>(input.high) - low) + 1;
    for (std::int64_t& value : tensor.as_mutable<std::int64_t>())  // the top 32 bits, scaled to the choices
      value = low + static_cast<std::int64_t>((mix(key, counter++) >> 32) * choices >> 32);
    if (dtype == DType::boolean) return boolean(tensor);
    return fit_tensor(std::move(tensor), input.info);
  }

  static Tensor boolean(const Tensor& zeros_and_ones) {
    Tensor out(DType::boolean, zeros_and_ones.dims());
    std::ranges::transform(zeros_and_ones.as<std::int64_t>(), out.as_mutable<std::uint8_t>().begin(),
                           [](std::int64_t value) { return static_cast<std::uint8_t>(value != 0); });
    return out;
  }

  std::vector<RandomInput> inputs_;
  std::uint64_t seed_;
  std::size_t samples_;
  std::size_t done_ = 0;
  std::string path_, description_;
};

std::unexpected<Error> bad_form(std::string_view path) {
  return fail(Code::usage,
              "'{}': random data are written random:seed=N, with a whole number N, and behind a comma for an input its "
              "shape, its values or both: INPUT=2x128, INPUT=:0..49, INPUT=1x512:-0.5..0.5, INPUT=:16000",
              path);
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && stop == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

// "2x128", ":0..49", ":16000" or "2x128:0..49". Limits of whole numbers stay where doubles are exact.
std::optional<Wish> parse_wish(std::string_view text) {
  const std::size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0) return std::nullopt;
  Wish wish{std::string(text.substr(0, equals)), {}, {}, {}};
  const std::string_view value = text.substr(equals + 1);
  const std::size_t colon = std::min(value.find(':'), value.size());
  if (const std::string_view shape = value.substr(0, colon); !shape.empty()) {
    wish.dims.emplace();
    for (const std::string& part : split(shape, 'x')) {
      const auto dim = number<std::int64_t>(part);
      if (!dim || *dim < 1) return std::nullopt;
      wish.dims->push_back(*dim);
    }
  }
  if (colon == value.size()) return wish.dims ? std::optional(wish) : std::nullopt;
  const std::string_view range = value.substr(colon + 1);
  const std::size_t dots = range.find("..");
  wish.low = number<double>(range.substr(0, dots));
  wish.high = dots == std::string_view::npos ? wish.low : number<double>(range.substr(dots + 2));
  constexpr double limit = 1U << 31;
  const bool fine = wish.low && wish.high && *wish.low <= *wish.high && *wish.low >= -limit && *wish.high < limit;
  return fine ? std::optional(wish) : std::nullopt;
}

struct Request {
  std::uint64_t seed = 0;
  std::vector<Wish> wishes;
};

Result<Request> parse_request(std::string_view path, std::span<const ValueInfo> inputs) {
  constexpr std::string_view key = "seed=";
  const std::vector<std::string> parts = split(path.substr(kPrefix.size()), ',');
  if (!parts.front().starts_with(key)) return bad_form(path);
  const auto seed = number<std::uint64_t>(std::string_view(parts.front()).substr(key.size()));
  if (!seed) return bad_form(path);
  Request request{*seed, {}};
  std::vector<std::string> names;
  for (const ValueInfo& info : inputs) names.push_back(info.name);
  for (const std::string& part : std::span(parts).subspan(1)) {
    auto wish = parse_wish(part);
    if (!wish) return bad_form(path);
    if (!std::ranges::contains(names, wish->input))
      return fail(Code::usage, "'{}': the model has no input '{}'{}", path, wish->input,
                  did_you_mean(wish->input, names));
    request.wishes.push_back(std::move(*wish));
  }
  return request;
}

// Free dimensions become 1; they are listed in `freed`.
void take_free_dims(const ValueInfo& info, const std::string& name, RandomInput& input,
                    std::vector<std::string>& freed) {
  for (std::size_t axis = 0; axis < info.type.shape->size(); ++axis) {
    const Dim& dim = (*info.type.shape)[axis];
    input.dims.push_back(dim.value.value_or(1));
    if (!dim.value)
      freed.push_back(
          fmt::format("{}[{}]", name, dim.symbol.empty() ? std::to_string(axis) : escape_control(dim.symbol)));
  }
}

Result<RandomInput> make_input(const ValueInfo& info, const Wish& wish, std::vector<std::string>& freed) {
  const std::string name = escape_control(info.name);
  const DType dtype = info.type.dtype;
  if (!info.type.is_tensor || !(is_float(dtype) || is_integer(dtype) || dtype == DType::boolean))
    return fail(Code::bad_input, "input '{}' is no tensor of numbers; random data cannot feed it", name);
  if (!info.type.shape) return fail(Code::bad_input, "input '{}' has no known rank; random data cannot feed it", name);
  RandomInput input{info, wish.dims.value_or(Dims()), wish.low.value_or(is_float(dtype) ? -1 : 0),
                    wish.high.value_or(1)};
  if (!is_float(dtype) && (input.low != std::floor(input.low) || input.high != std::floor(input.high)))
    return fail(Code::usage, "input '{}' takes whole numbers", name);
  if (wish.dims) {
    OP_TRY(check_shape(*wish.dims, info));
  } else {
    take_free_dims(info, name, input, freed);
  }
  OP_TRY(allocation_bytes(is_float(dtype) ? DType::f32 : DType::i64, input.dims, "input '" + name + "'"));
  return input;
}

}  // namespace

SourceResult open_random_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  OP_LET(const Request request, parse_request(options.path, inputs));
  const std::size_t samples = options.samples.value_or(kDefaultSamples);
  OP_TRY(wanted_samples(options, samples, options.path));
  std::vector<RandomInput> made;
  std::vector<std::string> freed;
  for (const ValueInfo& info : inputs) {
    const auto wish = std::ranges::find(request.wishes, info.name, &Wish::input);
    OP_LET(RandomInput input, make_input(info, wish == request.wishes.end() ? Wish() : *wish, freed));
    made.push_back(std::move(input));
  }
  const std::string note = freed.empty() ? "" : "; free dimensions set to 1: " + join(freed, ", ");
  return std::make_unique<RandomSource>(
      std::move(made), request.seed, samples, options.path,
      fmt::format("{} (synthetic, {}{})", escape_control(options.path), samples_text(samples, samples), note));
}

}  // namespace onnxpress
