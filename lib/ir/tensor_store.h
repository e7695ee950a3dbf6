// Where the bytes of large tensors live, outside the proto: a range of the model file or of an external data file,
// owned memory, or a spill file. A TensorProto refers to its slot by one reserved external_data entry, so it can be
// copied and moved like any other; the writer puts the bytes back in the form the file had.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "num/tensor.h"

namespace onnx {
class TensorProto;
}

namespace onnxpress {

// Payloads of at most this many bytes stay in the proto.
inline constexpr std::uint64_t kInlineLimit = 1024;

class TensorStore {
 public:
  using SlotId = std::uint64_t;
  enum class Origin { raw_data, external };  // the form the tensor had in its file

  TensorStore() = default;
  TensorStore(const TensorStore&) = delete;
  TensorStore& operator=(const TensorStore&) = delete;

  // Written payloads beyond `budget` bytes go to an unlinked temporary file in `folder`.
  void spill_to(std::filesystem::path folder, std::uint64_t budget);

  // A slot over a range of a file. The range must have been checked against the file's size.
  SlotId add_file(std::shared_ptr<FileReader> file, std::uint64_t offset, std::uint64_t length, Origin origin);
  Result<SlotId> add_bytes(std::vector<std::byte> bytes, Origin origin);

  Result<Bytes> read(SlotId slot) const;
  std::uint64_t length(SlotId slot) const;
  Origin origin(SlotId slot) const;
  bool any_external() const;  // did the model come with external data?

  // The slot a TensorProto refers to, if its payload is stored.
  static std::optional<SlotId> slot_of(const onnx::TensorProto& tensor);
  // Makes the proto refer to the slot: raw_data cleared, one external_data entry.
  static void attach(onnx::TensorProto& tensor, SlotId slot);
  // Removes the reference; the proto then has no payload.
  static void detach(onnx::TensorProto& tensor);

  // Any TensorProto (raw, typed fields, stored) as a dense tensor. Declared sizes are checked against the bytes.
  Result<Tensor> read(const onnx::TensorProto& tensor) const;
  // Replaces dtype, dims and payload (raw_data when small, a slot when large); name, doc and metadata stay.
  Status write(onnx::TensorProto& tensor, Tensor value);

 private:
  struct Slot {
    Origin origin = Origin::raw_data;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::shared_ptr<FileReader> file;
    std::shared_ptr<SpillFile> spill;
    std::shared_ptr<std::vector<std::byte>> owned;
  };
  Slot get(SlotId slot) const;

  mutable std::mutex mutex_;
  std::deque<Slot> slots_;
  std::filesystem::path spill_folder_;
  std::uint64_t spill_budget_ = ~std::uint64_t{0};
  std::uint64_t owned_bytes_ = 0;
  std::shared_ptr<SpillFile> spill_;
};

}  // namespace onnxpress
