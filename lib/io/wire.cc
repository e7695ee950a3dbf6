#include "io/wire.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "ir/payload.h"

namespace onnxpress {
namespace {

enum class Message { model, graph, node, attribute, tensor, sparse, function, opaque };

// The fields that can lead to a tensor.
Message child_of(Message message, std::uint64_t field) {
  switch (message) {
    case Message::model:
      return field == 7 ? Message::graph : field == 25 ? Message::function : Message::opaque;
    case Message::graph:
      return field == 1    ? Message::node
             : field == 5  ? Message::tensor
             : field == 15 ? Message::sparse
                           : Message::opaque;
    case Message::node:
      return field == 5 ? Message::attribute : Message::opaque;
    case Message::attribute:
      return field == 5 || field == 10    ? Message::tensor
             : field == 6 || field == 11  ? Message::graph
             : field == 22 || field == 23 ? Message::sparse
                                          : Message::opaque;
    case Message::sparse:
      return field == 1 || field == 2 ? Message::tensor : Message::opaque;
    case Message::function:
      return field == 7 ? Message::node : field == 11 ? Message::attribute : Message::opaque;
    default:
      return Message::opaque;
  }
}

// Fields that may stand once; protobuf would silently merge or overwrite them.
bool is_singular(Message message, std::uint64_t field) {
  return (message == Message::model && field == 7) || (message == Message::tensor && field == 9) ||
         (message == Message::sparse && (field == 1 || field == 2)) ||
         (message == Message::attribute && (field == 5 || field == 6 || field == 22));
}

constexpr std::uint64_t kTensorRawData = 9, kTensorExternalData = 13, kTensorDataLocation = 14;
constexpr std::uint64_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;
constexpr int kMaxDepth = 90;                    // protobuf refuses more than 100 levels
constexpr std::uint64_t kMessageOverhead = 320;  // heap of a parsed NodeProto, TensorProto, ... and its pointers

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
std::size_t varint_size(std::uint64_t value) {
  std::size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}
void put_tag(std::string& out, std::uint64_t field, std::uint64_t type) { put_varint(out, field << 3 | type); }
void put_bytes(std::string& out, std::uint64_t field, std::string_view bytes) {
  put_tag(out, field, kBytes);
  put_varint(out, bytes.size());
  out.append(bytes);
}

// A buffered cursor: the structure is read in blocks, payloads are jumped over.
class Cursor {
 public:
  explicit Cursor(const WireSource& source) : source_(source) {}
  std::uint64_t at() const { return at_; }
  Status skip(std::uint64_t count, std::uint64_t end) {
    if (count > end - at_) return truncated();
    at_ += count;
    return {};
  }
  Result<std::uint64_t> varint(std::uint64_t end) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ >= end) return truncated();
      if (at_ < begin_ || at_ >= begin_ + filled_) OP_TRY(fill());
      const auto byte = static_cast<std::uint64_t>(buffer_[at_ - begin_]);
      ++at_;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return fail(Code::bad_input, "not an ONNX model: malformed varint at byte {}", at_);
  }
  Status copy(std::uint64_t count, std::uint64_t end, std::string& out) {
    if (count > end - at_) return truncated();
    const std::size_t old = out.size();
    out.resize(old + count);
    OP_TRY(source_.read(at_, std::as_writable_bytes(std::span(out).subspan(old))));
    at_ += count;
    return {};
  }
  std::unexpected<Error> truncated() const {
    return fail(Code::bad_input, "truncated or not an ONNX model: a field at byte {} runs past its end", at_);
  }

 private:
  Status fill() {
    begin_ = at_;
    filled_ = std::min<std::uint64_t>(buffer_.size(), source_.size() - at_);
    return source_.read(begin_, std::span(buffer_).first(filled_));
  }
  const WireSource& source_;
  std::uint64_t at_ = 0, begin_ = 0, filled_ = 0;
  std::array<std::byte, 65536> buffer_;
};

class Scanner {
 public:
  Scanner(const WireSource& source, std::uint64_t max_memory) : cursor_(source), max_memory_(max_memory) {}

  Status scan(Message message, std::uint64_t end, int depth, std::string& out) {
    if (depth > kMaxDepth) return fail(Code::bad_input, "nested more than {} levels deep", kMaxDepth);
    OP_TRY(charge(kMessageOverhead));
    std::uint64_t seen = 0;
    TensorFields tensor;
    while (cursor_.at() < end) {
      OP_LET(const std::uint64_t tag, cursor_.varint(end));
      const std::uint64_t field = tag >> 3, type = tag & 7;
      if (field == 0) return fail(Code::bad_input, "not an ONNX model: field 0 at byte {}", cursor_.at());
      if (is_singular(message, field)) {
        if ((seen >> field & 1) != 0) return fail(Code::bad_input, "field {} stands twice in one message", field);
        seen |= std::uint64_t{1} << field;
      }
      if (type == kBytes) {
        OP_TRY(bytes_field(message, field, end, depth, tensor, out));
      } else {
        OP_TRY(scalar_field(message, field, type, end, tensor, out));
      }
    }
    return message == Message::tensor ? finish_tensor(tensor, out) : Status();
  }

  std::vector<PayloadRange> payloads;

 private:
  struct TensorFields {
    std::optional<PayloadRange> cut;        // raw_data left in the file
    std::optional<std::uint64_t> location;  // data_location as spelled
    bool external_entries = false;
  };

  Status charge(std::uint64_t bytes) {
    heap_ += bytes;
    if (heap_ <= max_memory_) return {};
    return fail(Code::resource, "the parsed model would take more than {} bytes of memory", max_memory_);
  }

  Status bytes_field(Message message, std::uint64_t field, std::uint64_t end, int depth, TensorFields& tensor,
                     std::string& out) {
    OP_LET(const std::uint64_t length, cursor_.varint(end));
    if (length > end - cursor_.at()) return cursor_.truncated();
    const bool in_tensor = message == Message::tensor;
    if (in_tensor && field == kTensorRawData && length > kInlineLimit) {
      tensor.cut = PayloadRange{cursor_.at(), length};
      return cursor_.skip(length, end);
    }
    if (in_tensor && field == kTensorExternalData) tensor.external_entries = true;
    const Message child = child_of(message, field);
    if (child != Message::opaque) {
      std::string inner;
      OP_TRY(scan(child, cursor_.at() + length, depth + 1, inner));
      put_bytes(out, field, inner);
      return {};
    }
    // Worst case of what protobuf makes of a byte: packed varints in tensors x8, nested empty messages elsewhere x40.
    const bool text = in_tensor || message == Message::node || message == Message::attribute || length > 4096;
    OP_TRY(charge(length * (text ? 8 : 40) + 48));
    put_tag(out, field, kBytes);
    put_varint(out, length);
    const std::size_t begin = out.size();
    OP_TRY(cursor_.copy(length, end, out));
    if (in_tensor && field == kTensorExternalData && out.find(kSlotKey, begin) != std::string::npos)
      return fail(Code::bad_input, "external data with the reserved key '{}'", kSlotKey);
    return {};
  }

  Status scalar_field(Message message, std::uint64_t field, std::uint64_t type, std::uint64_t end, TensorFields& tensor,
                      std::string& out) {
    if (type == kVarint) {
      OP_LET(const std::uint64_t value, cursor_.varint(end));
      OP_TRY(charge(16));
      if (message == Message::tensor && field == kTensorDataLocation) {
        tensor.location = value;
        return {};
      }
      put_tag(out, field, type);
      put_varint(out, value);
      return {};
    }
    if (type != kFixed32 && type != kFixed64)
      return fail(Code::bad_input, "not an ONNX model: wire type {} at byte {}", type, cursor_.at());
    OP_TRY(charge(16));
    put_tag(out, field, type);
    return cursor_.copy(type == kFixed32 ? 4 : 8, end, out);
  }

  // Spells the fields that were held back: data_location, or the reference to the payload's slot.
  Status finish_tensor(const TensorFields& tensor, std::string& out) {
    if (!tensor.cut) {
      if (tensor.location) {
        put_tag(out, kTensorDataLocation, kVarint);
        put_varint(out, *tensor.location);
      }
      return {};
    }
    if (tensor.external_entries || tensor.location.value_or(0) != 0)
      return fail(Code::bad_input, "a tensor has both raw_data and external data");
    std::string entry;
    put_bytes(entry, 1, kSlotKey);
    put_bytes(entry, 2, std::to_string(payloads.size()) + (tensor.location ? " default" : ""));
    put_bytes(out, kTensorExternalData, entry);
    put_tag(out, kTensorDataLocation, kVarint);
    put_varint(out, 1);
    payloads.push_back(*tensor.cut);
    return {};
  }

  Cursor cursor_;
  std::uint64_t max_memory_, heap_ = 0;
};

// Restoring works on trusted bytes (protobuf's own output), so it reads them without checks.
class Restorer {
 public:
  explicit Restorer(const TensorStore& store) : store_(store) {}

  // First pass: the restored size of each message that is descended into, in pre-order.
  std::uint64_t measure(Message message, std::string_view in) {
    const std::size_t mine = sizes_.size();
    sizes_.push_back(0);
    std::uint64_t size = 0;
    each_field(message, in, [&](const FieldView& field) {
      if (field.child != Message::opaque) {
        const std::uint64_t inner = measure(field.child, field.body);
        size += field.tag.size() + varint_size(inner) + inner;
      } else if (field.slot) {
        const std::uint64_t length = store_.length(*field.slot);
        size += 1 + varint_size(length) + length;
      } else {
        size += field.tag.size() + field.body.size();
      }
    });
    return sizes_[mine] = size;
  }

  // Second pass, the same order: emits.
  void emit(Message message, std::string_view in, WirePieces& out) {
    ++next_;
    each_field(message, in, [&](const FieldView& field) {
      if (field.child != Message::opaque) {
        literal_ += field.tag;
        put_varint(literal_, sizes_[next_]);
        emit(field.child, field.body, out);
      } else if (field.slot) {
        put_tag(literal_, kTensorRawData, kBytes);
        put_varint(literal_, store_.length(*field.slot));
        out.pieces.push_back({std::move(literal_), field.slot});
        literal_.clear();
      } else {
        literal_ += field.tag;
        literal_ += field.body;
      }
    });
  }
  void finish(WirePieces& out) {
    out.size = sizes_.front();
    out.pieces.push_back({std::move(literal_), std::nullopt});
  }

 private:
  struct FieldView {
    std::string_view tag;   // tag bytes (for a child: without the length)
    std::string_view body;  // the rest: for a child its content, else length and content
    Message child = Message::opaque;
    std::optional<TensorStore::SlotId> slot;
  };

  static std::uint64_t varint(std::string_view in, std::size_t& at) {
    std::uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(in[at++]);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
  }

  // The slot reference of a stored tensor, and whether data_location = DEFAULT was spelled in the source.
  static std::optional<std::pair<TensorStore::SlotId, bool>> slot_reference(std::string_view entry) {
    const std::size_t key = entry.find(kSlotKey);
    if (key != 2) return std::nullopt;  // tag, length, then the key itself
    const std::string_view value = entry.substr(2 + kSlotKey.size() + 2);
    return std::pair(std::stoull(std::string(value)), value.ends_with("default"));
  }

  template <class Fn>
  static void each_field(Message message, std::string_view in, Fn&& fn) {
    std::optional<std::pair<TensorStore::SlotId, bool>> stored;
    if (message == Message::tensor) stored = find_slot(in);
    bool emitted = false;
    const auto raw_data = [&] {
      if (stored && !emitted) fn(FieldView{{}, {}, Message::opaque, stored->first});
      emitted = true;
    };
    for (std::size_t at = 0; at < in.size();) {
      const std::size_t begin = at;
      const std::uint64_t tag = varint(in, at);
      const std::uint64_t field = tag >> 3, type = tag & 7;
      const std::size_t after_tag = at;
      std::size_t content = at;
      if (type == kBytes) {
        const std::uint64_t length = varint(in, at);
        content = at;
        at += length;
      } else if (type == kVarint) {
        varint(in, at);
      } else {
        at += type == kFixed32 ? 4 : 8;
      }
      if (stored && field > kTensorRawData) raw_data();
      if (stored && (field == kTensorExternalData || field == kTensorDataLocation)) {
        static constexpr std::string_view kSpelledDefault("\x70\x00", 2);
        if (field == kTensorDataLocation && stored->second) fn(FieldView{kSpelledDefault, {}, Message::opaque, {}});
        continue;
      }
      const std::string_view tag_bytes = in.substr(begin, after_tag - begin);
      const Message child = type == kBytes ? child_of(message, field) : Message::opaque;
      const std::size_t body = child == Message::opaque ? after_tag : content;
      fn(FieldView{tag_bytes, in.substr(body, at - body), child, {}});
    }
    raw_data();
  }

  static std::optional<std::pair<TensorStore::SlotId, bool>> find_slot(std::string_view tensor) {
    for (std::size_t at = 0; at < tensor.size();) {
      const std::uint64_t tag = varint(tensor, at);
      if ((tag & 7) == kBytes) {
        const std::uint64_t length = varint(tensor, at);
        if (tag >> 3 == kTensorExternalData)
          if (auto found = slot_reference(tensor.substr(at, length))) return found;
        at += length;
      } else if ((tag & 7) == kVarint) {
        varint(tensor, at);
      } else {
        at += (tag & 7) == kFixed32 ? 4 : 8;
      }
    }
    return std::nullopt;
  }

  const TensorStore& store_;
  std::vector<std::uint64_t> sizes_;
  std::size_t next_ = 0;
  std::string literal_;
};

}  // namespace

Result<Skeleton> scan_model(const WireSource& source, std::uint64_t max_memory) {
  auto scanner = std::make_unique<Scanner>(source, max_memory);
  Skeleton skeleton;
  OP_TRY(scanner->scan(Message::model, source.size(), 0, skeleton.bytes));
  skeleton.payloads = std::move(scanner->payloads);
  return skeleton;
}

WirePieces restore_payloads(std::string_view skeleton, const TensorStore& store) {
  Restorer restorer(store);
  WirePieces out;
  restorer.measure(Message::model, skeleton);
  restorer.emit(Message::model, skeleton, out);
  restorer.finish(out);
  return out;
}

}  // namespace onnxpress
