#include "npz/npy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <charconv>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "base/file.h"
#include "base/text.h"

namespace onnxpress {
namespace {

static_assert(std::endian::native == std::endian::little, "items are taken from the file as they are");

constexpr std::size_t kMaxRank = 64;  // numpy's own limit
constexpr std::string_view kMagic = "\x93NUMPY";

// A cursor over the header text. Each take_* moves past what it names or leaves the cursor where it was.
class HeaderText {
 public:
  explicit HeaderText(std::string_view text) : rest_(text) {}

  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip_space();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  std::optional<std::string_view> take_string() {
    skip_space();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"')) return std::nullopt;
    const std::size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view value = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return value;
  }
  std::optional<std::int64_t> take_size() {
    skip_space();
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc() || value < 0) return std::nullopt;
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return value;
  }
  std::string near() const {
    return rest_.empty() ? "the end" : fmt::format("'{}'", escape_control(rest_.substr(0, 24)));
  }
  bool at_end() {
    skip_space();
    return rest_.empty();
  }

 private:
  std::string_view rest_;
};

Result<DType> parse_descr(std::string_view descr) {
  static constexpr std::array<std::pair<std::string_view, DType>, 12> kinds = {{{"f2", DType::f16},
                                                                                {"f4", DType::f32},
                                                                                {"f8", DType::f64},
                                                                                {"i1", DType::i8},
                                                                                {"i2", DType::i16},
                                                                                {"i4", DType::i32},
                                                                                {"i8", DType::i64},
                                                                                {"u1", DType::u8},
                                                                                {"u2", DType::u16},
                                                                                {"u4", DType::u32},
                                                                                {"u8", DType::u64},
                                                                                {"b1", DType::boolean}}};
  const std::string shown = escape_control(descr);
  if (descr.find('O') != std::string_view::npos)
    return fail(Code::bad_input, "dtype '{}' holds Python objects, which are never unpickled", shown);
  if (descr.size() < 3) return fail(Code::bad_input, "dtype '{}' is not a numpy number type", shown);
  const char order = descr.front();
  for (const auto& [kind, dtype] : kinds) {
    if (descr.substr(1) != kind) continue;
    const bool one_byte = bit_width(dtype) == 8 || dtype == DType::boolean;
    if (order == '<' || (order == '|' && one_byte)) return dtype;
    if (order == '>')
      return fail(Code::bad_input, "dtype '{}' is big-endian; save it with .astype('<{}')", shown, kind);
  }
  return fail(Code::bad_input, "dtype '{}' is not supported; use f2, f4, f8, i1 to i8, u1 to u8 or b1, little-endian",
              shown);
}

Result<Dims> parse_shape(HeaderText& text) {
  if (!text.take("(")) return fail(Code::bad_input, "shape is not a tuple near {}", text.near());
  Dims dims;
  bool comma = false;
  while (!text.take(")")) {
    if (!dims.empty() && !comma) return fail(Code::bad_input, "',' or ')' expected in shape near {}", text.near());
    const auto size = text.take_size();
    if (!size) return fail(Code::bad_input, "bad size in shape near {}", text.near());
    if (dims.size() == kMaxRank) return fail(Code::bad_input, "more than {} dimensions", kMaxRank);
    dims.push_back(*size);
    comma = text.take(",");
  }
  // Python reads "(5)" as a number.
  if (dims.size() == 1 && !comma) return fail(Code::bad_input, "shape is not a tuple");
  return dims;
}

class FileStream final : public ByteStream {
 public:
  explicit FileStream(std::shared_ptr<FileReader> file) : file_(std::move(file)) {}
  std::uint64_t size() const override { return file_->size(); }
  Status read(std::span<std::byte> out) override {
    OP_TRY(file_->read_into(offset_, out));
    offset_ += out.size();
    return {};
  }
  Status finish() override { return {}; }
  Status rewind() override {
    offset_ = 0;
    return {};
  }

 private:
  std::shared_ptr<FileReader> file_;
  std::uint64_t offset_ = 0;
};

// Reads magic, version, length and text; the result is the text. `used` becomes the bytes read so far.
Result<std::string> read_header_text(ByteStream& stream, std::uint64_t& used) {
  std::array<std::byte, 12> start{};
  if (stream.size() < 10) return fail(Code::bad_input, "{} bytes are too few for a .npy header", stream.size());
  OP_TRY(stream.read(std::span(start).first(8)));
  if (std::string_view(reinterpret_cast<const char*>(start.data()), kMagic.size()) != kMagic)
    return fail(Code::bad_input, "not a .npy array (no \\x93NUMPY at its start)");
  const unsigned major = std::to_integer<unsigned>(start[6]);
  if (major < 1 || major > 3) return fail(Code::bad_input, ".npy version {} is not known", major);
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  used = 8 + length_bytes;
  if (stream.size() < used) return fail(Code::bad_input, "the .npy header is cut off");
  OP_TRY(stream.read(std::span(start).subspan(8, length_bytes)));
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) length |= std::to_integer<std::uint64_t>(start[8 + i]) << (8 * i);
  if (length > kMaxNpyHeader)
    return fail(Code::bad_input, "a .npy header of {} bytes is over {}", length, kMaxNpyHeader);
  if (length > stream.size() - used) return fail(Code::bad_input, "the .npy header is cut off");
  std::string text(static_cast<std::size_t>(length), '\0');
  OP_TRY(stream.read(std::as_writable_bytes(std::span(text))));
  used += length;
  return text;
}

}  // namespace

Result<NpyHeader> parse_npy_header(std::string_view source) {
  HeaderText text(source);
  NpyHeader header;
  bool has_descr = false, has_order = false, has_shape = false;
  if (!text.take("{")) return fail(Code::bad_input, "the .npy header is not a dictionary");
  bool comma = true;
  while (!text.take("}")) {
    if (!comma) return fail(Code::bad_input, "',' or '}}' expected in the .npy header near {}", text.near());
    const auto key = text.take_string();
    if (!key || !text.take(":")) return fail(Code::bad_input, "key expected in the .npy header near {}", text.near());
    bool* seen = *key == "descr"           ? &has_descr
                 : *key == "fortran_order" ? &has_order
                 : *key == "shape"         ? &has_shape
                                           : nullptr;
    if (!seen) return fail(Code::bad_input, "unknown key '{}' in the .npy header", escape_control(*key));
    if (std::exchange(*seen, true)) return fail(Code::bad_input, "key '{}' twice in the .npy header", *key);
    if (seen == &has_descr) {
      const auto descr = text.take_string();
      if (!descr) return fail(Code::bad_input, "structured arrays are not supported (descr near {})", text.near());
      OP_LET(header.dtype, parse_descr(*descr));
    } else if (seen == &has_shape) {
      OP_LET(header.dims, parse_shape(text));
    } else {
      header.fortran_order = text.take("True");
      if (!header.fortran_order && !text.take("False"))
        return fail(Code::bad_input, "fortran_order is neither True nor False near {}", text.near());
    }
    comma = text.take(",");
  }
  if (!text.at_end()) return fail(Code::bad_input, "unexpected {} after the .npy header", text.near());
  if (!has_descr || !has_order || !has_shape)
    return fail(Code::bad_input, "the .npy header lacks '{}'",
                !has_descr   ? "descr"
                : !has_shape ? "shape"
                             : "fortran_order");
  return header;
}

Result<NpyReader> NpyReader::open(std::unique_ptr<ByteStream> stream, std::string name) {
  NpyReader reader;
  auto text = read_header_text(*stream, reader.data_offset_);
  if (!text) return rethrow(text.error(), name);
  auto header = parse_npy_header(*text);
  if (!header) return rethrow(header.error(), name);
  // Leading items of a column-major array are spread over the whole file, which cannot be streamed.
  if (header->fortran_order && header->dims.size() > 1)
    return fail(Code::bad_input, "{}: the array is in Fortran order; save it with np.ascontiguousarray", name);
  const auto bytes = byte_count(header->dtype, header->dims);
  const std::uint64_t present = stream->size() - reader.data_offset_;
  if (!bytes || *bytes != present)
    return fail(Code::bad_input, "{}: shape {} of {} needs {} bytes, {} are there", name, dims_text(header->dims),
                dtype_name(header->dtype), bytes ? std::to_string(*bytes) : "more than 2^62", present);
  if (header->dims.empty())
    return fail(Code::bad_input, "{}: a single number has no leading axis that counts samples", name);
  reader.stream_ = std::move(stream);
  reader.name_ = std::move(name);
  reader.header_ = std::move(*header);
  reader.items_ = static_cast<std::uint64_t>(reader.header_.dims[0]);
  reader.item_bytes_ = byte_count(reader.header_.dtype, reader.item_dims()).value_or(0);
  reader.left_ = *bytes;
  return reader;
}

Status NpyReader::read(std::span<std::byte> out) {
  assert(out.size() <= left_);
  if (auto status = stream_->read(out); !status) return rethrow(status.error(), name_);
  left_ -= out.size();
  if (left_ == 0 && !out.empty()) {
    if (auto status = stream_->finish(); !status) return rethrow(status.error(), name_);
  }
  return {};
}

Status NpyReader::rewind() {
  if (auto status = stream_->rewind(); !status) return rethrow(status.error(), name_);
  std::array<std::byte, 4096> skipped;
  for (std::uint64_t left = data_offset_; left > 0;) {
    const auto part = std::span(skipped).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, skipped.size())));
    if (auto status = stream_->read(part); !status) return rethrow(status.error(), name_);
    left -= part.size();
  }
  left_ = items_ * item_bytes_;
  return {};
}

Result<NpyReader> open_npy(const std::filesystem::path& path) {
  OP_LET(auto file, FileReader::open(path));
  return NpyReader::open(std::make_unique<FileStream>(std::move(file)), path.filename().string());
}

}  // namespace onnxpress
