#include "support/wire.h"

namespace onnxpress::testing {
namespace {

std::string value_info(const std::string& name) {
  const std::string shape = wire_bytes(2, wire_bytes(1, wire_int(1, 1)));  // tensor shape of one dim 1
  return wire_bytes(1, name) + wire_bytes(2, wire_bytes(1, wire_int(1, 1) + shape));
}

std::string model(const std::string& initializers, const std::string& graph_tail = "", const std::string& tail = "") {
  const std::string node = wire_bytes(1, "x") + wire_bytes(2, "y") + wire_bytes(4, "Relu");
  const std::string graph = wire_bytes(1, node) + wire_bytes(2, "g") + initializers + wire_bytes(11, value_info("x")) +
                            wire_bytes(12, value_info("y")) + graph_tail;
  return wire_int(1, 8) + wire_bytes(7, graph) + wire_bytes(8, wire_bytes(1, "") + wire_int(2, 17)) + tail;
}

std::string tensor_head(const std::vector<std::int64_t>& dims) {
  std::string out;
  for (const std::int64_t dim : dims) out += wire_int(1, static_cast<std::uint64_t>(dim));
  return out + wire_int(2, 1);
}

}  // namespace

std::string wire_varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string wire_bytes(std::uint64_t field, const std::string& content) {
  return wire_varint(field << 3 | 2) + wire_varint(content.size()) + content;
}
std::string wire_int(std::uint64_t field, std::uint64_t value) { return wire_varint(field << 3) + wire_varint(value); }

std::string model_with_initializer(const std::string& tensor) { return model(wire_bytes(5, tensor)); }

std::string model_with_tensor(const std::vector<std::int64_t>& dims, const std::string& raw_data) {
  return model_with_initializer(tensor_head(dims) + wire_bytes(8, "w") + wire_bytes(9, raw_data));
}

std::string model_with_external(const std::vector<std::int64_t>& dims, const std::string& location,
                                const std::string& offset, const std::string& length) {
  const auto entry = [](const std::string& key, const std::string& value) {
    return value.empty() ? "" : wire_bytes(13, wire_bytes(1, key) + wire_bytes(2, value));
  };
  return model_with_initializer(tensor_head(dims) + wire_bytes(8, "w") + entry("location", location) +
                                entry("offset", offset) + entry("length", length) + wire_int(14, 1));
}

std::string hand_made_model() {
  const std::string unknown = wire_bytes(900, "from the future");
  const std::string typed =
      wire_int(1, 2) + wire_int(2, 1) + wire_bytes(4, std::string(8, '\1')) + wire_bytes(8, "typed") + unknown;
  const std::string raw = wire_int(1, 512) + wire_int(2, 1) + wire_bytes(8, "raw") +
                          wire_bytes(9, std::string(2048, '\2')) + wire_bytes(12, "doc") + wire_int(14, 0) + unknown;
  return model(wire_bytes(5, typed) + wire_bytes(5, raw), unknown, unknown);
}

}  // namespace onnxpress::testing
