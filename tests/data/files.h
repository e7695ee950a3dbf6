// Small data files written by hand: what the readers are tested with.
#pragma once

#include <zip.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/source.h"
#include "npz/npy.h"
#include "num/value_type.h"

namespace onnxpress::testing {

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A .npy version 1 around any header text.
inline std::string npy_with_header(const std::string& header, const std::string& payload) {
  std::string text("\x93NUMPY\x01\x00", 8);
  text += static_cast<char>(header.size() & 255);
  text += static_cast<char>(header.size() >> 8);
  return text + header + payload;
}

inline std::string npy(std::string_view descr, std::string_view shape, const std::string& payload) {
  return npy_with_header(fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n", descr, shape),
                         payload);
}

// 0, 1, 2, ... as an array.
template <class T>
std::string counting_npy(std::string_view descr, std::string_view shape, std::size_t count) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<T>(i);
  return npy(descr, shape, raw(values));
}

inline void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Writes an archive of `entries` (full names, so with ".npy").
inline void write_zip(const std::string& path, const std::vector<std::pair<std::string, std::string>>& entries,
                      zip_int32_t method = ZIP_CM_STORE) {
  int code = 0;
  zip_t* zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  REQUIRE(zip != nullptr);
  for (const auto& [name, content] : entries) {
    zip_source_t* source = zip_source_buffer(zip, content.data(), content.size(), 0);
    const zip_int64_t index = zip_file_add(zip, name.c_str(), source, ZIP_FL_ENC_UTF_8);
    REQUIRE(index >= 0);
    REQUIRE(zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), method, 0) == 0);
  }
  REQUIRE(zip_close(zip) == 0);
}

// An input; -1 is a free dimension called "n".
inline ValueInfo input(std::string name, DType dtype, const Dims& dims) {
  std::vector<Dim> shape;
  for (const std::int64_t dim : dims) shape.push_back(dim < 0 ? Dim{std::nullopt, "n"} : Dim{dim, ""});
  return {std::move(name), {dtype, shape, true}};
}

// Fails the test when `result` is no error that mentions `part`.
template <class T>
void require_error(const Result<T>& result, Code code, std::string_view part) {
  REQUIRE_FALSE(result);
  INFO(result.error().text());
  CHECK(result.error().code == code);
  CHECK(result.error().text().find(part) != std::string::npos);
}

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  const auto values = tensor.as<T>();
  return {values.begin(), values.end()};
}

inline std::vector<Batch> read_all(SampleSource& source) {
  std::vector<Batch> batches;
  for (;;) {
    auto batch = source.next();
    if (!batch) FAIL(batch.error().text());
    if (!*batch) return batches;
    batches.push_back(std::move(**batch));
  }
}

inline std::unique_ptr<SampleSource> require_source(const DataOptions& options, const std::vector<ValueInfo>& inputs) {
  auto source = open_source(options, inputs);
  if (!source) FAIL(source.error().text());
  return std::move(*source);
}

// Bytes in memory as a stream that remembers how it was read.
class MemoryStream final : public ByteStream {
 public:
  explicit MemoryStream(std::string content, std::size_t* largest = nullptr, std::size_t* total = nullptr)
      : content_(std::move(content)), largest_(largest), total_(total) {}
  std::uint64_t size() const override { return content_.size(); }
  Status read(std::span<std::byte> out) override {
    if (out.size() > content_.size() - offset_) return fail(Code::bad_input, "read past the end");
    std::memcpy(out.data(), content_.data() + offset_, out.size());
    offset_ += out.size();
    if (largest_) *largest_ = std::max(*largest_, out.size());
    if (total_) *total_ += out.size();
    return {};
  }
  Status finish() override { return {}; }
  Status rewind() override {
    offset_ = 0;
    return {};
  }

 private:
  std::string content_;
  std::size_t offset_ = 0;
  std::size_t* largest_;
  std::size_t* total_;
};

}  // namespace onnxpress::testing
