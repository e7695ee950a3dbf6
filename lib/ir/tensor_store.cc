#include "ir/tensor_store.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <charconv>

#include "ir/payload.h"

namespace onnxpress {
namespace {

// "<slot>" or "<slot> default": the latter when the file spelled data_location = DEFAULT out.
constexpr std::string_view kDefaultFlag = " default";

Result<Bytes> aligned(const FileReader& file, std::uint64_t offset, std::uint64_t length) {
  OP_LET(Bytes bytes, file.read(offset, length));
  if (reinterpret_cast<std::uintptr_t>(bytes.data.data()) % alignof(double) == 0) return bytes;
  // raw_data may start at any byte of a model file; readers are promised alignment.
  auto copy = std::make_shared<std::vector<std::byte>>(bytes.data.begin(), bytes.data.end());
  return Bytes{*copy, copy};
}

}  // namespace

void TensorStore::spill_to(std::filesystem::path folder, std::uint64_t budget) {
  const std::lock_guard lock(mutex_);
  spill_folder_ = std::move(folder);
  spill_budget_ = budget;
}

TensorStore::SlotId TensorStore::add_file(std::shared_ptr<FileReader> file, std::uint64_t offset, std::uint64_t length,
                                          Origin origin) {
  const std::lock_guard lock(mutex_);
  slots_.push_back({origin, offset, length, std::move(file), nullptr, nullptr});
  return slots_.size() - 1;
}

Result<TensorStore::SlotId> TensorStore::add_bytes(std::vector<std::byte> bytes, Origin origin) {
  const std::lock_guard lock(mutex_);
  Slot slot;
  slot.origin = origin;
  slot.length = bytes.size();
  if (!spill_folder_.empty() && owned_bytes_ + bytes.size() > spill_budget_) {
    if (!spill_) {
      OP_LET(spill_, SpillFile::create(spill_folder_));
    }
    OP_LET(slot.offset, spill_->append(bytes));
    slot.spill = spill_;
  } else {
    owned_bytes_ += bytes.size();
    slot.owned = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  }
  slots_.push_back(std::move(slot));
  return slots_.size() - 1;
}

TensorStore::Slot TensorStore::get(SlotId slot) const {
  const std::lock_guard lock(mutex_);
  assert(slot < slots_.size());
  return slots_[slot];
}

Result<Bytes> TensorStore::read(SlotId id) const {
  const Slot slot = get(id);
  if (slot.owned) return Bytes{*slot.owned, slot.owned};
  if (slot.spill) return slot.spill->read(slot.offset, slot.length);
  return aligned(*slot.file, slot.offset, slot.length);
}

std::uint64_t TensorStore::length(SlotId slot) const { return get(slot).length; }
TensorStore::Origin TensorStore::origin(SlotId slot) const { return get(slot).origin; }
bool TensorStore::any_external() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(slots_, [](const Slot& slot) { return slot.origin == Origin::external; });
}

std::optional<TensorStore::SlotId> TensorStore::slot_of(const onnx::TensorProto& tensor) {
  if (tensor.data_location() != onnx::TensorProto::EXTERNAL) return std::nullopt;
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() != kSlotKey) continue;
    SlotId slot = 0;
    const std::string& value = entry.value();
    [[maybe_unused]] const auto parsed = std::from_chars(value.data(), value.data() + value.size(), slot);
    assert(parsed.ec == std::errc());
    return slot;
  }
  return std::nullopt;
}

void TensorStore::attach(onnx::TensorProto& tensor, SlotId slot) {
  const bool spelled = tensor.has_data_location() && tensor.data_location() == onnx::TensorProto::DEFAULT;
  tensor.clear_raw_data();
  tensor.clear_external_data();
  auto* entry = tensor.add_external_data();
  entry->set_key(std::string(kSlotKey));
  entry->set_value(std::to_string(slot) + (spelled ? std::string(kDefaultFlag) : ""));
  tensor.set_data_location(onnx::TensorProto::EXTERNAL);
}

void TensorStore::detach(onnx::TensorProto& tensor) {
  if (!slot_of(tensor)) return;
  const bool spelled = tensor.external_data(0).value().ends_with(kDefaultFlag);
  tensor.clear_external_data();
  tensor.clear_data_location();
  if (spelled) tensor.set_data_location(onnx::TensorProto::DEFAULT);
}

Result<Tensor> TensorStore::read(const onnx::TensorProto& tensor) const {
  const auto dtype = static_cast<DType>(tensor.data_type());
  Dims dims(tensor.dims().begin(), tensor.dims().end());
  const auto expected = byte_count(dtype, dims);
  if (!expected)
    return fail(Code::unsupported, "tensor '{}': cannot read {} data of shape {}", tensor.name(), dtype_name(dtype),
                dims_text(dims));
  if (const auto slot = slot_of(tensor)) {
    OP_LET(Bytes bytes, read(*slot));
    if (bytes.data.size() != *expected)
      return fail(Code::bad_input, "tensor '{}': {} {} needs {} bytes, {} present", tensor.name(), dtype_name(dtype),
                  dims_text(dims), *expected, bytes.data.size());
    return Tensor(dtype, std::move(dims), bytes.data, std::move(bytes.keep));
  }
  OP_LET(auto payload, inline_payload(tensor));
  return Tensor(dtype, std::move(dims), std::move(payload));
}

Status TensorStore::write(onnx::TensorProto& tensor, Tensor value) {
  const auto old = slot_of(tensor);
  const Origin form = old ? origin(*old) : Origin::raw_data;
  detach(tensor);
  tensor.clear_external_data();
  tensor.clear_data_location();
  tensor.clear_segment();
  tensor.clear_float_data();
  tensor.clear_int32_data();
  tensor.clear_int64_data();
  tensor.clear_double_data();
  tensor.clear_uint64_data();
  tensor.clear_string_data();
  tensor.set_data_type(static_cast<int>(value.dtype()));
  tensor.clear_dims();
  for (const std::int64_t dim : value.dims()) tensor.add_dims(dim);
  if (value.bytes().size() <= kInlineLimit) {
    tensor.set_raw_data(value.bytes().data(), value.bytes().size());
    return {};
  }
  OP_LET(const SlotId slot, add_bytes(std::move(value).take_bytes(), form));
  attach(tensor, slot);
  return {};
}

}  // namespace onnxpress
