#include "data/single_samples.h"

#include <algorithm>

namespace onnxpress {
namespace {

NamedTensor part_of(const NamedTensor& whole, std::size_t index, std::size_t samples) {
  Dims dims = whole.tensor.dims();
  dims[0] = 1;
  const auto bytes = whole.tensor.bytes();
  // A copy, because the alignment of a tensor's first byte may decide in which order a kernel adds.
  const auto part = bytes.subspan(index * (bytes.size() / samples), bytes.size() / samples);
  return {whole.name, Tensor(whole.tensor.dtype(), std::move(dims), std::vector<std::byte>(part.begin(), part.end()))};
}

}  // namespace

bool SingleSamples::divisible(const Batch& batch) const {
  return std::ranges::all_of(batch.inputs, [&](const NamedTensor& input) {
    const Tensor& tensor = input.tensor;
    if (tensor.dims().empty() || tensor.dims()[0] != static_cast<std::int64_t>(batch.samples)) return false;
    if (tensor.size() / batch.samples * bit_width(tensor.dtype()) % 8 != 0) return false;  // half a byte each
    const auto wanted = std::ranges::find(model_, input.name, &ValueInfo::name);
    return wanted == model_.end() || !wanted->type.dim(0);
  });
}

Result<std::optional<Batch>> SingleSamples::next() {
  if (next_ >= batch_.samples) {
    OP_LET(auto batch, source_.next());
    if (!batch || batch->samples <= 1 || !divisible(*batch)) return batch;
    batch_ = std::move(*batch);
    next_ = 0;
  }
  Batch one;
  for (const NamedTensor& input : batch_.inputs) one.inputs.push_back(part_of(input, next_, batch_.samples));
  ++next_;
  return one;
}

Status SingleSamples::rewind() {
  batch_ = {};
  next_ = batch_.samples;
  return source_.rewind();
}

}  // namespace onnxpress
