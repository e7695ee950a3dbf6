#include "sparse/sparse_store.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "ir/file_bytes.h"
#include "ir/scope_head.h"
#include "num/cluster.h"
#include "num/sparse_codec.h"

namespace onnxpress {
namespace {

constexpr std::size_t kCodes = 255;  // of a codebook, beside zero
constexpr double kLargestHalf = 65504;

// Runtimes cannot make a tensor of these out of nothing.
bool needs_cast(DType dtype) { return dtype == DType::bf16; }

std::int64_t as_attribute(DType dtype) { return static_cast<std::int64_t>(dtype); }

std::string emit_values(ScopeHead& head, const SparseWeight& weight) {
  const DType dtype = weight.fill.dtype();
  switch (weight.form) {
    case SparseValues::plain:
      return head.constant("_values", weight.values);
    case SparseValues::half:
      return head.node("Cast", {head.constant("_values", weight.values)}, {}, {{"to", as_attribute(dtype)}});
    case SparseValues::codebook:
      break;
  }
  const std::string table = head.constant("_table", weight.values);
  const std::string codes =
      head.node("Cast", {head.constant("_codes", weight.codes)}, {}, {{"to", as_attribute(DType::i32)}});
  return head.node("Gather", {table, codes});
}

void emit(ScopeHead& head, std::string_view name, const SparseWeight& weight) {
  const auto count = static_cast<std::int64_t>(element_count(weight.dims).value_or(0));
  const std::string gaps =
      head.node("Cast", {head.constant("_gaps", weight.gaps)}, {}, {{"to", as_attribute(DType::i32)}});
  const std::string axis = head.constant("_axis", Tensor::scalar<std::int32_t>(DType::i32, 0));
  const std::string positions = head.node("CumSum", {gaps, axis});
  const std::string values = emit_values(head, weight);
  const DType dtype = weight.fill.dtype();
  Tensor fill = weight.fill;
  if (needs_cast(dtype)) fill = Tensor(DType::f32, {1});  // such a fill is 0
  std::string empty = head.node("ConstantOfShape", {head.dims("_count", {count})}, {}, {{"value", std::move(fill)}});
  if (needs_cast(dtype)) empty = head.node("Cast", {empty}, {}, {{"to", as_attribute(dtype)}});
  const bool flat = weight.dims.size() == 1;
  const std::string dense = head.node("ScatterElements", {empty, positions, values},
                                      flat ? std::string(name) : std::string(), {{"axis", std::int64_t{0}}});
  if (!flat) head.node("Reshape", {dense, head.dims("_dims", weight.dims)}, std::string(name));
}

std::uint64_t decoder_bytes(std::string_view name, const SparseWeight& weight) {
  Model scratch;
  Rewriter rewriter(scratch.main());
  ScopeHead head(rewriter, name);
  emit(head, name, weight);
  return head.file_bytes();
}

// Whether every value is a finite number that a half holds exactly.
bool fit_halves(const Tensor& values) {
  const auto fits = [](float value) { return std::isfinite(value) && half_to_float(float_to_half(value)) == value; };
  if (values.dtype() == DType::f32) return std::ranges::all_of(values.as<float>(), fits);
  if (values.dtype() != DType::f64) return false;
  return std::ranges::all_of(values.as<double>(), [&](double value) {
    return static_cast<double>(static_cast<float>(value)) == value && fits(static_cast<float>(value));
  });
}

struct Forms {
  bool codebook = false, half = false;
};

Forms forms_of(const Tensor& values, bool compact) {
  if (!compact || bit_width(values.dtype()) == 8) return {};
  return {.codebook = codebook_of(values.view()).has_value(), .half = fit_halves(values)};
}

// Takes over a candidate that is smaller than the best so far.
void consider(std::string_view name, SparseWeight candidate, SparseWeight& best) {
  candidate.file_bytes = decoder_bytes(name, candidate);
  if (best.file_bytes == 0 || candidate.file_bytes < best.file_bytes) best = std::move(candidate);
}

// `values` holds zeros too where gaps are bridged, which may be one value too many for a table.
void consider_all(std::string_view name, const SparseWeight& base, Tensor values, Forms forms, SparseWeight& best) {
  auto book = forms.codebook ? codebook_of(values.view()) : std::nullopt;
  if (book) {
    SparseWeight coded = base;
    coded.form = SparseValues::codebook;
    coded.values = std::move(book->table);
    coded.codes = std::move(book->codes);
    consider(name, std::move(coded), best);
  }
  if (auto halves = forms.half ? convert(values.view(), DType::f16) : Result<Tensor>(Tensor()); forms.half && halves) {
    SparseWeight half = base;
    half.form = SparseValues::half;
    half.values = std::move(*halves);
    consider(name, std::move(half), best);
  }
  SparseWeight plain = base;
  plain.values = std::move(values);
  consider(name, std::move(plain), best);
}

Result<std::vector<double>> finite_values(const Tensor& weight) {
  OP_LET(const Tensor wide, convert(weight.view(), DType::f64));
  const auto values = wide.as<double>();
  if (!std::ranges::all_of(values, [](double value) { return std::isfinite(value); }))
    return fail(Code::unsupported, "it holds values that are not finite");
  return std::vector<double>(values.begin(), values.end());
}

}  // namespace

bool is_sparse_storable(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::f16 || dtype == DType::bf16 ||
         dtype == DType::i8 || dtype == DType::u8;
}

SparseWeight encode_sparse(std::string_view name, const Tensor& weight, bool compact) {
  assert(is_sparse_storable(weight.dtype()) && weight.size() > 0);
  SparseWeight base;
  base.dims = weight.dims();
  base.fill = common_value(weight.view());
  base.dense_bytes = initializer_bytes(name, weight.dtype(), weight.dims());
  const auto positions = positions_of_others(weight.view(), base.fill.view());
  base.stored = positions.size();
  const Forms forms = forms_of(take(weight.view(), positions), compact);
  const std::uint64_t value_bytes = forms.codebook ? 1 : forms.half ? 2 : bit_width(weight.dtype()) / 8;
  if (base.stored * (1 + value_bytes) >= base.dense_bytes) return base;
  SparseWeight best = base;
  for (const DType gaps : {DType::u8, DType::u16}) {
    const auto entries = bridged(positions, gaps == DType::u8 ? 0xff : 0xffff);
    base.gaps = gaps_of(entries, gaps);
    consider_all(name, base, take(weight.view(), entries), forms, best);
    if (entries.size() <= std::max<std::uint64_t>(positions.size(), 1)) break;  // nothing to bridge
  }
  return best;
}

void write_sparse(Rewriter& rewriter, std::string_view name, SparseWeight weight) {
  ScopeHead head(rewriter, name);
  emit(head, name, weight);
}

Result<Tensor> round_to_codebook(const Tensor& weight) {
  assert(is_float(weight.dtype()));
  OP_LET(std::vector<double> values, finite_values(weight));
  std::vector<double> others;
  std::ranges::copy_if(values, std::back_inserter(others), [](double value) { return value != 0; });
  if (others.empty()) return Tensor(weight.dtype(), weight.dims());
  const std::vector<double> centres = cluster_centres(others, kCodes);
  for (double& value : values) value = value == 0 ? 0 : centres[nearest_centre(centres, value)];
  return convert(Tensor::of<double>(DType::f64, weight.dims(), values).view(), weight.dtype());
}

Result<Tensor> round_to_half(const Tensor& weight) {
  assert(is_float(weight.dtype()));
  OP_LET(std::vector<double> values, finite_values(weight));
  if (std::ranges::any_of(values, [](double value) { return std::abs(value) > kLargestHalf; }))
    return fail(Code::unsupported, "it holds values that a half does not reach");
  for (double& value : values)
    if (value == 0) value = 0;  // -0 as well
  OP_LET(const Tensor halves, convert(Tensor::of<double>(DType::f64, weight.dims(), values).view(), DType::f16));
  return convert(halves.view(), weight.dtype());
}

double rounding_sqnr_db(const Tensor& exact, const Tensor& rounded) {
  const auto a = convert(exact.view(), DType::f64), b = convert(rounded.view(), DType::f64);
  if (!a || !b) return std::numeric_limits<double>::quiet_NaN();
  double signal = 0, noise = 0;
  const auto values = a->as<double>(), changed = b->as<double>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    signal += values[i] * values[i];
    noise += (values[i] - changed[i]) * (values[i] - changed[i]);
  }
  return noise == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(signal / noise);
}

}  // namespace onnxpress
