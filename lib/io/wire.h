// The protobuf wire format of a model, walked without parsing it: large raw_data payloads are left where they are.
// Field numbers are those of onnx.proto (onnx 1.17).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/tensor_store.h"

namespace onnxpress {

// Reads the wire bytes of a file or of memory.
class WireSource {
 public:
  virtual ~WireSource() = default;
  virtual std::uint64_t size() const = 0;
  virtual Status read(std::uint64_t offset, std::span<std::byte> out) const = 0;
};

struct PayloadRange {
  std::uint64_t offset = 0, length = 0;
};

struct Skeleton {
  std::string bytes;  // the ModelProto with each payload of more than kInlineLimit bytes replaced by a slot reference
  std::vector<PayloadRange> payloads;  // of slot 0, 1, ...
};

// One pass over the wire: checks nesting, counts and duplicate singular fields, estimates the heap the parse will take,
// and cuts the payloads out. Errors: bad_input (malformed, truncated), resource (estimate above max_memory).
Result<Skeleton> scan_model(const WireSource& source, std::uint64_t max_memory);

// The opposite: serialized skeleton in, pieces of the full file out, stored payloads in raw_data's canonical place.
struct WirePiece {
  std::string literal;                      // emitted first
  std::optional<TensorStore::SlotId> slot;  // then this payload, if any
};
struct WirePieces {
  std::vector<WirePiece> pieces;
  std::uint64_t size = 0;  // bytes in all
};
WirePieces restore_payloads(std::string_view skeleton, const TensorStore& store);

}  // namespace onnxpress
