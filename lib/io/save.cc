#include "io/save.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx_pb.h>
#include <unistd.h>

#include <functional>

#include "base/hash.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "io/load.h"
#include "io/text.h"
#include "io/wire.h"
#include "ir/walk.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;
using Sink = std::function<Status(std::span<const std::byte>)>;

constexpr std::uint64_t kProtobufLimit = 0x7fffffff;           // bytes of one message
constexpr std::uint64_t kEmbedLimit = 1900ULL << 20;           // beyond it, data goes to its own file
constexpr std::uint64_t kWriteBlock = std::uint64_t{8} << 20;  // payload bytes in memory while writing

std::string canonical(const onnx::ModelProto& proto) {
  std::string text;
  google::protobuf::io::StringOutputStream stream(&text);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  proto.SerializeToCodedStream(&coded);
  coded.Trim();
  return text;
}

Status emit_payload(const TensorStore& store, TensorStore::SlotId slot, const Sink& sink) {
  OP_LET(const Bytes bytes, store.read(slot));
  for (std::uint64_t at = 0; at < bytes.data.size(); at += kWriteBlock) {
    OP_TRY(check_interrupt());
    OP_TRY(sink(bytes.data.subspan(at, std::min<std::uint64_t>(kWriteBlock, bytes.data.size() - at))));
  }
  return {};
}

Status emit(const WirePieces& pieces, const TensorStore& store, const Sink& sink) {
  for (const WirePiece& piece : pieces.pieces) {
    OP_TRY(sink(std::as_bytes(std::span(piece.literal))));
    if (piece.slot) OP_TRY(emit_payload(store, *piece.slot, sink));
  }
  return {};
}

Result<WirePieces> embedded_pieces(const onnx::ModelProto& proto, const TensorStore& store) {
  WirePieces pieces = restore_payloads(canonical(proto), store);
  if (pieces.size > kProtobufLimit)
    return fail(Code::resource, "{} bytes do not fit one ONNX file (2 GiB limit); use external data", pieces.size);
  return pieces;
}

// Where each external tensor of a proto goes in the data file: main-graph initializers, in graph order.
struct Layout {
  struct Item {
    TensorStore::SlotId slot;
    std::uint64_t offset;
  };
  std::vector<Item> items;
};

Status write_data(const TensorStore& store, const Layout& layout, AtomicFile& file, Hasher& hasher) {
  std::uint64_t total = 0;
  for (const Layout::Item& item : layout.items) total += store.length(item.slot);
  Progress progress("saving", total, Progress::Unit::bytes);
  for (const Layout::Item& item : layout.items) {
    const std::uint64_t before = file.written();
    if (item.offset > before) {
      OP_TRY(file.write(std::vector<std::byte>(item.offset - before)));
    }
    OP_TRY(emit_payload(store, item.slot, [&](std::span<const std::byte> bytes) {
      hasher.add(bytes);
      progress.tick(bytes.size());
      return file.write(bytes);
    }));
  }
  return file.sync();
}

// External data is raw: a large tensor in a typed field (float_data, ...) moves to the store first.
Status store_typed_payloads(onnx::ModelProto& proto, TensorStore& store) {
  for (auto& tensor : *proto.mutable_graph()->mutable_initializer()) {
    const Dims dims(tensor.dims().begin(), tensor.dims().end());
    const auto bytes = byte_count(static_cast<DType>(tensor.data_type()), dims);
    if (!bytes || *bytes <= kInlineLimit || TensorStore::slot_of(tensor)) continue;
    OP_LET(Tensor value, store.read(tensor));
    OP_TRY(store.write(tensor, std::move(value)));
  }
  return {};
}

// Turns stored main-graph initializers into references to `location` and lays the data file out.
Layout externalize(onnx::ModelProto& proto, const TensorStore& store, std::uint64_t alignment) {
  Layout layout;
  std::uint64_t end = 0;
  for (auto& tensor : *proto.mutable_graph()->mutable_initializer()) {
    const auto slot = TensorStore::slot_of(tensor);
    if (!slot) continue;
    const std::uint64_t offset = (end + alignment - 1) / alignment * alignment;
    const std::uint64_t length = store.length(*slot);
    end = offset + length;
    layout.items.push_back({*slot, offset});
    tensor.clear_external_data();
    const auto entry = [&](std::string key, std::string value) {
      auto* pair = tensor.add_external_data();
      pair->set_key(std::move(key));
      pair->set_value(std::move(value));
    };
    entry("location", "");
    entry("offset", std::to_string(offset));
    entry("length", std::to_string(length));
  }
  return layout;
}

void set_location(onnx::ModelProto& proto, const std::string& location) {
  for (auto& tensor : *proto.mutable_graph()->mutable_initializer())
    for (auto& pair : *tensor.mutable_external_data())
      if (pair.key() == "location" && pair.value().empty()) pair.set_value(location);
}

// Data files of ours that the model being replaced refers to: "<stem>-<12 hex digits>.data" beside it.
std::vector<fs::path> owned_data_files(const fs::path& model_path) {
  std::vector<fs::path> found;
  const std::string prefix = model_path.stem().string() + "-";
  std::error_code ignored;
  if (!fs::is_regular_file(model_path, ignored)) return found;
  const auto old = load_model(model_path.string());
  if (!old || !old->store().any_external()) return found;
  for (const auto& entry :
       fs::directory_iterator(model_path.parent_path().empty() ? "." : model_path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(".data") || name.size() != prefix.size() + 17) continue;
    const std::string digits = name.substr(prefix.size(), 12);
    if (digits.find_first_not_of("0123456789abcdef") == std::string::npos) found.push_back(entry.path());
  }
  return found;
}

// The written file must read back as a whole model before it may take its place.
Status verify(const fs::path& temporary, std::uint64_t size) {
  OP_LET(const auto file, FileReader::open(temporary));
  if (file->size() != size)
    return fail(Code::io, "{}: {} bytes on disk, {} written", temporary.string(), file->size(), size);
  return {};
}

Result<SavedFiles> write_model(const onnx::ModelProto& proto, const TensorStore& store, const fs::path& path) {
  OP_LET(const WirePieces pieces, embedded_pieces(proto, store));
  OP_LET(AtomicFile file, AtomicFile::create(path));
  Hasher hasher;
  Progress progress("saving", pieces.size, Progress::Unit::bytes);
  OP_TRY(emit(pieces, store, [&](std::span<const std::byte> bytes) {
    hasher.add(bytes);
    progress.tick(bytes.size());
    return file.write(bytes);
  }));
  OP_TRY(file.sync());
  OP_TRY(verify(file.temporary(), pieces.size));
  OP_TRY(file.commit());
  return SavedFiles{pieces.size, 0, {}, hasher.hex()};
}

Result<SavedFiles> save_external(const Model& model, const fs::path& path, std::uint64_t alignment) {
  onnx::ModelProto proto = model.proto();
  OP_TRY(store_typed_payloads(proto, model.store()));
  const Layout layout = externalize(proto, model.store(), std::max<std::uint64_t>(alignment, 1));
  if (layout.items.empty()) return write_model(proto, model.store(), path);
  const std::vector<fs::path> stale = owned_data_files(path);
  const fs::path folder = path.parent_path();
  fs::path data_path;
  std::uint64_t data_bytes = 0;
  {
    OP_LET(AtomicFile data, AtomicFile::create(folder / (path.stem().string() + ".data")));
    Hasher hasher;
    OP_TRY(write_data(model.store(), layout, data, hasher));
    data_path = folder / fmt::format("{}-{}.data", path.stem().string(), hasher.hex().substr(0, 12));
    data_bytes = data.written();
    OP_TRY(verify(data.temporary(), data_bytes));
    OP_TRY(data.commit_as(data_path));
  }
  set_location(proto, data_path.filename().string());
  OP_LET(SavedFiles saved, write_model(proto, model.store(), path));
  saved.data_bytes = data_bytes;
  saved.data_path = data_path;
  for (const fs::path& old : stale) {
    std::error_code ignored;
    if (old.filename() != data_path.filename()) fs::remove(old, ignored);
  }
  return saved;
}

// The whole model as text, every number written out.
Result<SavedFiles> save_text(const Model& model, const std::string& path) {
  OP_LET(const std::string text, dump_model_text(model, {.max_elements = ~std::size_t{0}, .node_names = true}));
  OP_TRY(write_text_file(path, text));
  return SavedFiles{text.size(), 0, {}, hash_hex(std::as_bytes(std::span(text)))};
}

Result<SavedFiles> save_stdout(const Model& model) {
  OP_LET(const std::string text, serialize_model(model));
  for (std::size_t at = 0; at < text.size();) {
    const auto wrote = ::write(STDOUT_FILENO, text.data() + at, text.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return fail(Code::io, "stdout: {}", errno_text(errno));
    at += static_cast<std::size_t>(wrote);
  }
  return SavedFiles{text.size(), 0, {}, hash_hex(std::as_bytes(std::span(text)))};
}

}  // namespace

Result<std::uint64_t> serialized_size(const Model& model) {
  return restore_payloads(canonical(model.proto()), model.store()).size;
}

Result<std::string> serialize_model(const Model& model) {
  OP_LET(const WirePieces pieces, embedded_pieces(model.proto(), model.store()));
  std::string text;
  text.reserve(pieces.size);
  OP_TRY(emit(pieces, model.store(), [&](std::span<const std::byte> bytes) -> Status {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }));
  return text;
}

Result<SavedFiles> save_model(const Model& model, const std::string& path, const SaveOptions& options) {
  if (path == "-") {
    if (options.data == SaveOptions::Data::external)
      return fail(Code::usage, "external data cannot go to stdout; name an output file");
    return save_stdout(model);
  }
  std::error_code ignored;
  if (!options.overwrite && fs::exists(fs::symlink_status(path, ignored)))
    return fail(Code::usage, "{} exists; use --force to overwrite", path);
  if (path.ends_with(".onnxtxt")) return save_text(model, path);
  bool external = options.data == SaveOptions::Data::external;
  if (options.data == SaveOptions::Data::automatic) {
    OP_LET(const std::uint64_t size, serialized_size(model));
    external = model.store().any_external() || size > kEmbedLimit;
  }
  return external ? save_external(model, path, options.alignment) : write_model(model.proto(), model.store(), path);
}

}  // namespace onnxpress
