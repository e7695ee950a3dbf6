// Models spelled byte by byte in the protobuf wire format: what no well-behaved writer would make.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onnxpress::testing {

std::string wire_varint(std::uint64_t value);
std::string wire_bytes(std::uint64_t field, const std::string& content);  // length-delimited
std::string wire_int(std::uint64_t field, std::uint64_t value);           // varint

// g (float[1] x) => (float[1] y) { y = Relu(x) } with one more initializer, given as TensorProto bytes.
std::string model_with_initializer(const std::string& tensor);
// The same with a float tensor "w" of these dims and this raw_data.
std::string model_with_tensor(const std::vector<std::int64_t>& dims, const std::string& raw_data);
// The same with external data; empty offset or length are left out.
std::string model_with_external(const std::vector<std::int64_t>& dims, const std::string& location,
                                const std::string& offset, const std::string& length);
// Canonical bytes with an unknown field at every level, float_data, and a 2 KB raw_data whose data_location is
// spelled DEFAULT (initializer "raw").
std::string hand_made_model();

}  // namespace onnxpress::testing
