#include "quant/weight_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "ir/edit.h"
#include "ir/scope_head.h"

namespace onnxpress {
namespace {

// Scales of one per channel, shaped to broadcast over the weight: all ones but the channels. `dims` is the weight's own
// shape, which `view` may have joined axes of (the directions and gates of a recurrent weight).
Dims broadcast_dims(const WeightJob& job, const Dims& dims, std::size_t scales) {
  if (scales == 1) return {};
  Dims out(dims.size(), 1);
  if (job.view.empty()) {
    out[static_cast<std::size_t>(job.channel_axis)] = dims[static_cast<std::size_t>(job.channel_axis)];
  } else {
    std::copy(dims.begin(), dims.end() - 1, out.begin());  // the view is [all but the last, the last]
  }
  return out;
}

std::int64_t reduction_axis(const WeightJob& job) { return job.channel_axis == 0 ? 1 : 0; }  // of a matrix

bool is_centered(const QuantizedWeight& weight) {
  return std::ranges::all_of(weight.zero_points, [](std::int32_t zero) { return zero == 0; });
}

// The matrix seen in blocks along its reduction, [.., blocks, block, ..].
Dims split_dims(const Dims& dims, std::size_t axis, std::int64_t block) {
  Dims out = dims;
  out[axis] = dims[axis] / block;
  out.insert(out.begin() + static_cast<std::ptrdiff_t>(axis) + 1, block);
  return out;
}

}  // namespace

Tensor WeightStore::packed(const Tensor& codes) {
  assert(bit_width(codes.dtype()) == 4);
  const auto bytes = codes.bytes();
  return Tensor(DType::u8, {static_cast<std::int64_t>(bytes.size())}, std::vector(bytes.begin(), bytes.end()));
}

Result<std::string> WeightStore::table(DType codes, DType to, std::int32_t zero_point) {
  std::string& name = tables_[{codes, to, zero_point}];
  if (!name.empty()) return name;
  std::vector<float> values;
  for (int byte = 0; byte < 256; ++byte)
    for (const int code : {byte & 15, byte >> 4})
      values.push_back(static_cast<float>((codes == DType::i4 && code > 7 ? code - 16 : code) - zero_point));
  OP_LET(Tensor table, convert(Tensor::of_floats({256, 2}, values).view(), to));
  Graph& main = model_.main();
  const std::string base = fmt::format("{}_pairs_{}{}", dtype_name(codes), dtype_name(to),
                                       zero_point == 0 ? "" : fmt::format("_less_{}", zero_point));
  // A table of an earlier run is as good as a new one.
  if (const Initializer old = main.initializer(base); old && !main.is_input(base)) {
    OP_LET(const Tensor value, old.read());
    if (value.dtype() == table.dtype() && value.dims() == table.dims() &&
        std::ranges::equal(value.bytes(), table.bytes()))
      return name = base;
  }
  Rewriter& rewriter = rewriters_.of(main);
  name = rewriter.fresh_value(base);
  rewriter.add_initializer(name, std::move(table));
  return name;
}

Result<std::string> WeightStore::unpack(Graph& scope, std::string_view name, const Tensor& codes, DType to) {
  OP_LET(const std::string pairs, table(codes.dtype(), to));
  ScopeHead head(rewriters_.of(scope), name);
  const std::string bytes = head.constant("_packed", packed(codes));
  const std::string index = head.node("Cast", {bytes}, {}, {{"to", static_cast<std::int64_t>(DType::i32)}});
  std::string flat = head.node("Gather", {pairs, index});  // [bytes, 2]
  if (codes.size() % 2 != 0) {                             // the last half byte is padding
    flat = head.node("Reshape", {flat, head.dims("_flat", {-1})});
    flat = head.node("Slice",
                     {flat, head.dims("_first", {0}), head.dims("_count", {static_cast<std::int64_t>(codes.size())})});
  }
  return head.node("Reshape", {flat, head.dims("_dims", codes.dims())});
}

Status WeightStore::replace(const WeightJob& job, QuantizedWeight weight, WeightForm form) {
  assert(!job.transpose && job.factor == 1);
  Graph& scope = *job.reader->scope_of(job.name);
  const auto [dtype, dims] = *job.reader->constant_type(job.name);
  Rewriter& rewriter = rewriters_.of(scope);
  drop_constant(rewriter, scope, job.name);
  weight.codes.reshape(dims);
  // One axis of scales is all that DequantizeLinear has.
  const bool two_axes = !job.view.empty() && dims.front() != 1;
  if (form == WeightForm::dequantize && !two_axes) return dequantize(job, std::move(weight), scope, dtype);
  return compute(job, std::move(weight), scope, dtype);
}

Status WeightStore::dequantize(const WeightJob& job, QuantizedWeight weight, Graph& scope, DType dtype) {
  ScopeHead head(rewriters_.of(scope), job.name);
  const bool many = weight.scales.size() > 1;
  Tensor scale = weight.scale_tensor(many), zero = weight.zero_point_tensor(many);
  OP_LET(scale, convert(scale.view(), dtype));
  std::vector<std::pair<std::string, AttributeValue>> attributes;
  if (job.block > 0) {
    attributes = {{"axis", reduction_axis(job)}, {"block_size", job.block}};
  } else if (many) {
    attributes = {{"axis", job.view.empty() ? job.channel_axis : 1}};
  }
  std::vector<std::string> inputs = {head.constant("_quantized", std::move(weight.codes)),
                                     head.constant("_scale", std::move(scale))};
  if (!is_centered(weight)) inputs.push_back(head.constant("_zero_point", std::move(zero)));
  head.node("DequantizeLinear", std::move(inputs), job.name, std::move(attributes));
  return {};
}

Status WeightStore::compute(const WeightJob& job, QuantizedWeight weight, Graph& scope, DType dtype) {
  ScopeHead head(rewriters_.of(scope), job.name);
  const Dims dims = weight.codes.dims();
  // Runtimes fold on the processor, which computes in float: half-precision arithmetic would be left for every run.
  const DType work = dtype == DType::f16 || dtype == DType::bf16 ? DType::f32 : dtype;
  const auto reduction = static_cast<std::size_t>(reduction_axis(job));
  std::string real;
  if (bit_width(weight.codes.dtype()) == 4) {
    OP_LET(real, unpack(scope, job.name, weight.codes, work));
  } else {
    const std::string codes = head.constant("_quantized", std::move(weight.codes));
    real = head.node("Cast", {codes}, {}, {{"to", static_cast<std::int64_t>(work)}});
  }
  Dims shape = broadcast_dims(job, dims, weight.scales.size());
  if (job.block > 0) {
    shape = split_dims(weight.block_dims, reduction, 1);
    real = head.node("Reshape", {real, head.dims("_blocks", split_dims(dims, reduction, job.block))});
  }
  const auto parameter = [&](const std::vector<float>& values, const char* suffix) -> Result<std::string> {
    OP_LET(Tensor tensor, convert(Tensor::of_floats(shape, values).view(), work));
    return head.constant(suffix, std::move(tensor));
  };
  if (!is_centered(weight)) {
    OP_LET(const std::string zero, parameter({weight.zero_points.begin(), weight.zero_points.end()}, "_zero_point"));
    real = head.node("Sub", {real, zero});
  }
  OP_LET(const std::string scale, parameter(weight.scales, "_scale"));
  const auto finish = [&](const char* op, std::vector<std::string> inputs) {
    if (work == dtype) {
      head.node(op, std::move(inputs), job.name);
    } else {
      const std::string wide = head.node(op, std::move(inputs));
      head.node("Cast", {wide}, job.name, {{"to", static_cast<std::int64_t>(dtype)}});
    }
  };
  if (job.block == 0) {
    finish("Mul", {real, scale});
  } else {
    real = head.node("Mul", {real, scale});
    finish("Reshape", {real, head.dims("_shape", dims)});
  }
  return {};
}

}  // namespace onnxpress
