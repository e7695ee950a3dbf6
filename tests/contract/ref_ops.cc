// The operators of ref_eval.h, each as its definition in the ONNX specification reads.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include "contract/ref_eval.h"

namespace onnxpress::testing {
namespace {

using Outputs = Result<std::vector<RefTensor>>;

struct Call {
  const Node& node;
  const RefInputs& inputs;
  std::int64_t opset;

  const RefTensor& in(std::size_t i) const { return *inputs.at(i); }
  bool has(std::size_t i) const { return i < inputs.size() && inputs[i] != nullptr; }
  std::unexpected<Error> unsupported(std::string_view what) const {
    return fail(Code::unsupported, "{}: {} {}", node.label(), node.op(), what);
  }
};

Dims coordinates(std::size_t index, const Dims& dims) {
  Dims at(dims.size());
  for (std::size_t i = dims.size(); i-- > 0;) {
    at[i] = static_cast<std::int64_t>(index) % dims[i];
    index /= static_cast<std::size_t>(dims[i]);
  }
  return at;
}

// Row-major index into `dims` of a coordinate of a shape it is broadcast to.
std::size_t broadcast_index(const Dims& at, const Dims& dims) {
  std::size_t index = 0;
  const std::size_t skip = at.size() - dims.size();
  for (std::size_t i = 0; i < dims.size(); ++i)
    index = index * static_cast<std::size_t>(dims[i]) + static_cast<std::size_t>(dims[i] == 1 ? 0 : at[skip + i]);
  return index;
}

Dims broadcast(const Dims& a, const Dims& b) {
  Dims out(std::max(a.size(), b.size()), 1);
  for (const Dims* dims : {&a, &b})
    for (std::size_t i = 0; i < dims->size(); ++i) {
      std::int64_t& dim = out[out.size() - dims->size() + i];
      if ((*dims)[i] != 1) dim = (*dims)[i];
    }
  return out;
}

RefTensor zeros(const Dims& dims) { return {dims, std::vector<double>(ref_count(dims))}; }

RefTensor map_values(const RefTensor& x, const std::function<double(double)>& fn) {
  RefTensor out = x;
  std::ranges::transform(x.values, out.values.begin(), fn);
  return out;
}

RefTensor binary(const RefTensor& a, const RefTensor& b, const std::function<double(double, double)>& fn) {
  RefTensor out = zeros(broadcast(a.dims, b.dims));
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const Dims at = coordinates(i, out.dims);
    out.values[i] = fn(a.values[broadcast_index(at, a.dims)], b.values[broadcast_index(at, b.dims)]);
  }
  return out;
}

RefTensor matmul(RefTensor a, RefTensor b) {
  const bool row = a.dims.size() == 1, column = b.dims.size() == 1;
  if (row) a.dims.insert(a.dims.begin(), 1);
  if (column) b.dims.push_back(1);
  const std::int64_t k = a.dims.back(), m = a.dims[a.dims.size() - 2], n = b.dims.back();
  Dims dims = broadcast(Dims(a.dims.begin(), a.dims.end() - 2), Dims(b.dims.begin(), b.dims.end() - 2));
  dims.push_back(m);
  dims.push_back(n);
  RefTensor out = zeros(dims);
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const Dims at = coordinates(i, dims);
    Dims left = at, right = at;
    for (std::int64_t j = 0; j < k; ++j) {
      left.back() = j;
      right[right.size() - 2] = j;
      // A dimension of size 1 is read at 0 either way, so that the product may be broadcast like the batch.
      out.values[i] += a.values[broadcast_index(left, a.dims)] * b.values[broadcast_index(right, b.dims)];
    }
  }
  if (row) out.dims.erase(out.dims.end() - 2);
  if (column) out.dims.pop_back();
  return out;
}

RefTensor transpose(const RefTensor& x, const Dims& perm) {
  Dims dims;
  for (const std::int64_t axis : perm) dims.push_back(x.dims[static_cast<std::size_t>(axis)]);
  RefTensor out = zeros(dims);
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const Dims at = coordinates(i, dims);
    Dims from(at.size());
    for (std::size_t j = 0; j < perm.size(); ++j) from[static_cast<std::size_t>(perm[j])] = at[j];
    out.values[i] = x.values[broadcast_index(from, x.dims)];
  }
  return out;
}

Outputs gemm(const Call& call) {
  const RefTensor a = call.node.attr_int("transA", 0) != 0 ? transpose(call.in(0), {1, 0}) : call.in(0);
  const RefTensor b = call.node.attr_int("transB", 0) != 0 ? transpose(call.in(1), {1, 0}) : call.in(1);
  const double alpha = call.node.attr_float("alpha", 1), beta = call.node.attr_float("beta", 1);
  RefTensor out = map_values(matmul(a, b), [&](double v) { return alpha * v; });
  if (call.has(2)) out = binary(out, call.in(2), [&](double v, double c) { return v + beta * c; });
  return std::vector{std::move(out)};
}

// Geometry of a 2-D window.
struct Window {
  std::int64_t kernel[2], stride[2], dilation[2], begin[2], out[2];
};

Result<Window> window_of(const Call& call, const Dims& kernel) {
  const Node& node = call.node;
  const std::string pad = node.attr_string("auto_pad", "NOTSET");
  if (call.in(0).dims.size() != 4 || pad != "NOTSET" || node.attr_int("ceil_mode", 0) != 0)
    return call.unsupported("but two-dimensional with explicit pads");
  const Dims strides = node.attr_ints("strides", {1, 1}), dilations = node.attr_ints("dilations", {1, 1}),
             pads = node.attr_ints("pads", {0, 0, 0, 0});
  Window window{};
  for (std::size_t i = 0; i < 2; ++i) {
    window.kernel[i] = kernel[i];
    window.stride[i] = strides[i];
    window.dilation[i] = dilations[i];
    window.begin[i] = pads[i];
    const std::int64_t padded = call.in(0).dims[2 + i] + pads[i] + pads[2 + i];
    window.out[i] = (padded - (dilations[i] * (kernel[i] - 1) + 1)) / strides[i] + 1;
  }
  return window;
}

// Calls fn(row in kernel, column in kernel, index in the plane) for each position of the window inside the plane.
template <class Fn>
void for_window(const Window& w, std::int64_t height, std::int64_t width, std::int64_t row, std::int64_t column,
                Fn fn) {
  for (std::int64_t i = 0; i < w.kernel[0]; ++i)
    for (std::int64_t j = 0; j < w.kernel[1]; ++j) {
      const std::int64_t r = row * w.stride[0] + i * w.dilation[0] - w.begin[0];
      const std::int64_t c = column * w.stride[1] + j * w.dilation[1] - w.begin[1];
      if (r >= 0 && c >= 0 && r < height && c < width) fn(i, j, static_cast<std::size_t>(r * width + c));
    }
}

Outputs conv(const Call& call) {
  const RefTensor &x = call.in(0), &w = call.in(1);
  OP_LET(const Window win, window_of(call, {w.dims.at(2), w.dims.at(3)}));
  const std::int64_t group = call.node.attr_int("group", 1), per_group = w.dims[0] / group, depth = w.dims[1];
  const std::int64_t height = x.dims[2], width = x.dims[3];
  RefTensor out = zeros({x.dims[0], w.dims[0], win.out[0], win.out[1]});
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const Dims at = coordinates(i, out.dims);
    double sum = call.has(2) ? call.in(2).values[static_cast<std::size_t>(at[1])] : 0;
    for (std::int64_t c = 0; c < depth; ++c) {
      const std::int64_t channel = at[1] / per_group * depth + c;
      const auto plane = static_cast<std::size_t>((at[0] * x.dims[1] + channel) * height * width);
      const auto filter = static_cast<std::size_t>((at[1] * depth + c) * win.kernel[0] * win.kernel[1]);
      for_window(win, height, width, at[2], at[3], [&](std::int64_t kr, std::int64_t kc, std::size_t index) {
        sum += x.values[plane + index] * w.values[filter + static_cast<std::size_t>(kr * win.kernel[1] + kc)];
      });
    }
    out.values[i] = sum;
  }
  return std::vector{std::move(out)};
}

Outputs pool(const Call& call) {
  const RefTensor& x = call.in(0);
  const bool is_max = call.node.is("MaxPool");
  OP_LET(const Window win, window_of(call, call.node.attr_ints("kernel_shape")));
  if (call.node.output_count() > 1) return call.unsupported("with indices");
  const bool count_pads = call.node.attr_int("count_include_pad", 0) != 0;
  RefTensor out = zeros({x.dims[0], x.dims[1], win.out[0], win.out[1]});
  const auto area = static_cast<std::size_t>(x.dims[2] * x.dims[3]);
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const Dims at = coordinates(i, out.dims);
    const std::size_t plane = static_cast<std::size_t>(at[0] * x.dims[1] + at[1]) * area;
    double sum = 0, largest = -std::numeric_limits<double>::infinity(), count = 0;
    for_window(win, x.dims[2], x.dims[3], at[2], at[3], [&](std::int64_t, std::int64_t, std::size_t index) {
      sum += x.values[plane + index];
      largest = std::max(largest, x.values[plane + index]);
      ++count;
    });
    if (count_pads) count = static_cast<double>(win.kernel[0] * win.kernel[1]);
    out.values[i] = is_max ? largest : sum / count;
  }
  return std::vector{std::move(out)};
}

Outputs global_average(const Call& call) {
  const RefTensor& x = call.in(0);
  RefTensor out = zeros({x.dims[0], x.dims[1], 1, 1});
  const std::size_t area = x.values.size() / out.values.size();
  for (std::size_t i = 0; i < x.values.size(); ++i) out.values[i / area] += x.values[i] / static_cast<double>(area);
  return std::vector{std::move(out)};
}

Outputs batchnorm(const Call& call) {
  const RefTensor& x = call.in(0);
  if (call.node.attr_int("training_mode", 0) != 0) return call.unsupported("in training mode");
  const double epsilon = call.node.attr_float("epsilon", 1e-5F);
  RefTensor out = x;
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    const auto c = static_cast<std::size_t>(coordinates(i, x.dims)[1]);
    const double deviation = std::sqrt(call.in(4).values[c] + epsilon);
    out.values[i] = (x.values[i] - call.in(3).values[c]) / deviation * call.in(1).values[c] + call.in(2).values[c];
  }
  return std::vector{std::move(out)};
}

// Up to opset 12 over all axes from `axis` on, afterwards over that axis alone.
Outputs softmax(const Call& call) {
  const RefTensor& x = call.in(0);
  const auto rank = static_cast<std::int64_t>(x.dims.size());
  const bool flat = call.opset < 13;
  const std::int64_t given = call.node.attr_int("axis", flat ? 1 : -1), axis = given < 0 ? given + rank : given;
  RefTensor out = map_values(x, [](double v) { return std::exp(v); });
  std::map<Dims, double> sums;
  const auto key = [&](std::size_t i) {
    Dims at = coordinates(i, x.dims);
    for (std::int64_t a = axis; a < (flat ? rank : axis + 1); ++a) at[static_cast<std::size_t>(a)] = 0;
    return at;
  };
  for (std::size_t i = 0; i < out.values.size(); ++i) sums[key(i)] += out.values[i];
  for (std::size_t i = 0; i < out.values.size(); ++i) out.values[i] /= sums[key(i)];
  return std::vector{std::move(out)};
}

Outputs clip(const Call& call) {
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  if (call.opset < 11) {
    low = call.node.attr_float("min", std::numeric_limits<float>::lowest());
    high = call.node.attr_float("max", std::numeric_limits<float>::max());
  }
  if (call.has(1)) low = call.in(1).values.at(0);
  if (call.has(2)) high = call.in(2).values.at(0);
  return std::vector{map_values(call.in(0), [&](double v) { return std::min(std::max(v, low), high); })};
}

Outputs concat(const Call& call) {
  Dims dims = call.in(0).dims;
  const std::int64_t given = call.node.attr_int("axis", 0);
  const auto axis = static_cast<std::size_t>(given < 0 ? given + static_cast<std::int64_t>(dims.size()) : given);
  dims[axis] = 0;
  for (const RefTensor* part : call.inputs) dims[axis] += part->dims[axis];
  RefTensor out = zeros(dims);
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    Dims at = coordinates(i, dims);
    std::size_t part = 0;
    for (; at[axis] >= call.in(part).dims[axis]; ++part) at[axis] -= call.in(part).dims[axis];
    out.values[i] = call.in(part).values[broadcast_index(at, call.in(part).dims)];
  }
  return std::vector{std::move(out)};
}

Outputs reshape(const Call& call) {
  RefTensor out = call.in(0);
  Dims dims;
  for (const double size : call.in(1).values) dims.push_back(static_cast<std::int64_t>(size));
  std::int64_t* open = nullptr;
  std::size_t known = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 0 && call.node.attr_int("allowzero", 0) == 0) dims[i] = out.dims.at(i);
    if (dims[i] < 0)
      open = &dims[i];
    else
      known *= static_cast<std::size_t>(dims[i]);
  }
  if (open != nullptr) *open = static_cast<std::int64_t>(out.values.size() / known);
  out.dims = dims;
  return std::vector{std::move(out)};
}

Outputs flatten(const Call& call) {
  RefTensor out = call.in(0);
  const std::int64_t given = call.node.attr_int("axis", 1);
  const std::int64_t axis = given < 0 ? given + static_cast<std::int64_t>(out.dims.size()) : given;
  const auto rows = static_cast<std::int64_t>(ref_count(Dims(out.dims.begin(), out.dims.begin() + axis)));
  out.dims = {rows, rows == 0 ? 0 : static_cast<std::int64_t>(out.values.size()) / rows};
  return std::vector{std::move(out)};
}

Outputs constant(const Call& call) {
  const Node& node = call.node;
  if (node.has_attr("value")) {
    OP_LET(const auto tensor, node.attr_tensor("value"));
    OP_LET(RefTensor out, to_ref(*tensor));
    return std::vector{std::move(out)};
  }
  if (node.has_attr("value_float")) {
    const double value = node.attr_float("value_float", 0);
    return std::vector{RefTensor{{}, {value}}};
  }
  if (node.has_attr("value_int")) {
    const auto value = static_cast<double>(node.attr_int("value_int", 0));
    return std::vector{RefTensor{{}, {value}}};
  }
  RefTensor out;
  for (const float value : node.attr_floats("value_floats")) out.values.push_back(value);
  for (const std::int64_t value : node.attr_ints("value_ints")) out.values.push_back(static_cast<double>(value));
  out.dims = {static_cast<std::int64_t>(out.values.size())};
  return std::vector{std::move(out)};
}

Outputs transpose_node(const Call& call) {
  Dims reversed(call.in(0).dims.size());
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  return std::vector{transpose(call.in(0), call.node.attr_ints("perm", reversed))};
}

Outputs matmul_node(const Call& call) { return std::vector{matmul(call.in(0), call.in(1))}; }

const std::map<std::string_view, double (*)(double)> kUnary = {
    {"Identity", [](double v) { return v; }},
    {"Dropout", [](double v) { return v; }},
    {"Relu", [](double v) { return std::max(v, 0.0); }},
    {"Neg", [](double v) { return -v; }},
    {"Exp", [](double v) { return std::exp(v); }},
    {"Tanh", [](double v) { return std::tanh(v); }},
    {"Sqrt", [](double v) { return std::sqrt(v); }},
    {"Sigmoid", [](double v) { return 1 / (1 + std::exp(-v)); }},
};
const std::map<std::string_view, double (*)(double, double)> kBinary = {
    {"Add", [](double a, double b) { return a + b; }},
    {"Sub", [](double a, double b) { return a - b; }},
    {"Mul", [](double a, double b) { return a * b; }},
    {"Div", [](double a, double b) { return a / b; }},
};
const std::map<std::string_view, Outputs (*)(const Call&)> kOthers = {
    {"Gemm", gemm},         {"Conv", conv},
    {"MaxPool", pool},      {"AveragePool", pool},
    {"Softmax", softmax},   {"GlobalAveragePool", global_average},
    {"Clip", clip},         {"BatchNormalization", batchnorm},
    {"Concat", concat},     {"Reshape", reshape},
    {"Flatten", flatten},   {"Transpose", transpose_node},
    {"Constant", constant}, {"MatMul", matmul_node},
};

}  // namespace

Result<std::vector<RefTensor>> ref_node(const Node& node, const RefInputs& inputs, std::int64_t opset) {
  const Call call{node, inputs, opset};
  if (!node.domain().empty()) return call.unsupported("is of another domain");
  if (const auto it = kUnary.find(node.op()); it != kUnary.end()) {
    if (node.output_count() > 1) return call.unsupported("with two outputs");
    return std::vector{map_values(call.in(0), it->second)};
  }
  if (const auto it = kBinary.find(node.op()); it != kBinary.end())
    return std::vector{binary(call.in(0), call.in(1), it->second)};
  if (const auto it = kOthers.find(node.op()); it != kOthers.end()) return it->second(call);
  return call.unsupported("is not known here");
}

}  // namespace onnxpress::testing
