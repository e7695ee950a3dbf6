// The payload a TensorProto carries itself: raw_data or one of the typed fields. For lib/ir, lib/io, lib/engine only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace onnx {
class TensorProto;
}

namespace onnxpress {

// Key of the external_data entry by which a TensorProto refers to a slot of the TensorStore. Files may not use it.
inline constexpr std::string_view kSlotKey = "onnxpress.slot";

// Checks that exactly one payload field is used and that it holds what dtype and dims ask for. External and stored
// payloads are checked where they are resolved. Error bad_input.
Status check_payload(const onnx::TensorProto& tensor);

// The same for a payload of `bytes` bytes that lies elsewhere.
Status check_stored(const onnx::TensorProto& tensor, std::uint64_t bytes);

// The payload as raw_data bytes (onnx.proto: which typed field carries which type). Not for stored or external ones.
Result<std::vector<std::byte>> inline_payload(const onnx::TensorProto& tensor);

}  // namespace onnxpress
