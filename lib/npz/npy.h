// The .npy array format, read front to back (numpy's "NPY format", versions 1.0 to 3.0).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "num/tensor.h"

namespace onnxpress {

// Bytes that come in order, with a total known beforehand: a file, or one entry of a zip archive.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual std::uint64_t size() const = 0;
  virtual Status read(std::span<std::byte> out) = 0;  // all of `out`, or an error
  virtual Status finish() = 0;                        // called after the last byte: checksum, nothing left over
  virtual Status rewind() = 0;
};

struct NpyHeader {
  DType dtype = DType::undefined;
  Dims dims;
  bool fortran_order = false;
};

inline constexpr std::size_t kMaxNpyHeader = std::size_t{64} * 1024;

// The Python dictionary of a header: the keys descr, fortran_order and shape, once each, in any order. Accepts
// little-endian f2 f4 f8 i1..i8 u1..u8 and b1. Errors (bad_input): anything else, with what was found.
Result<NpyHeader> parse_npy_header(std::string_view text);

// One array whose leading axis counts items. Holds the header only; items are read when asked for.
class NpyReader {
 public:
  // Reads the header (never more than 64 KiB of it) and checks that shape x dtype is exactly the bytes that follow,
  // before anything is allocated. `name` is for messages. Errors: bad_input, io.
  static Result<NpyReader> open(std::unique_ptr<ByteStream> stream, std::string name);

  const std::string& name() const { return name_; }
  DType dtype() const { return header_.dtype; }
  const Dims& dims() const { return header_.dims; }
  std::uint64_t items() const { return items_; }  // the leading dimension
  std::span<const std::int64_t> item_dims() const { return std::span(header_.dims).subspan(1); }
  std::uint64_t item_bytes() const { return item_bytes_; }

  // The next out.size() / item_bytes() items. The caller asks for no more than are left.
  Status read(std::span<std::byte> out);
  Status rewind();

 private:
  NpyReader() = default;
  std::unique_ptr<ByteStream> stream_;
  std::string name_;
  NpyHeader header_;
  std::uint64_t data_offset_ = 0;
  std::uint64_t items_ = 0;
  std::uint64_t item_bytes_ = 0;
  std::uint64_t left_ = 0;  // bytes of items not read yet
};

// A .npy file. Errors: io, bad_input.
Result<NpyReader> open_npy(const std::filesystem::path& path);

}  // namespace onnxpress
