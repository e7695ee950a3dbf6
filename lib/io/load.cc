#include "io/load.h"

#include <onnx/onnx_pb.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/interrupt.h"
#include "io/text.h"
#include "io/validate.h"
#include "io/wire.h"
#include "ir/payload.h"
#include "ir/walk.h"

namespace onnxpress {
namespace {

class FileSource : public WireSource {
 public:
  explicit FileSource(std::shared_ptr<FileReader> file) : file_(std::move(file)) {}
  std::uint64_t size() const override { return file_->size(); }
  Status read(std::uint64_t offset, std::span<std::byte> out) const override { return file_->read_into(offset, out); }

 private:
  std::shared_ptr<FileReader> file_;
};

class MemorySource : public WireSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_.size(); }
  Status read(std::uint64_t offset, std::span<std::byte> out) const override {
    std::ranges::copy(bytes_.subspan(offset, out.size()), out.begin());
    return {};
  }

 private:
  std::span<const std::byte> bytes_;
};

std::uint64_t default_memory() {
  const auto pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page) / 2
                               : std::uint64_t{2} << 30;
}

struct ExternalEntry {
  std::string location;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;
};

Result<std::uint64_t> parse_size(const std::string& text, std::string_view key) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(Code::bad_input, "external data: {} '{}' is not a size", key, text);
  return value;
}

Result<ExternalEntry> parse_external(const onnx::TensorProto& tensor) {
  ExternalEntry entry;
  for (const auto& pair : tensor.external_data()) {
    if (pair.key() == "location") {
      entry.location = pair.value();
    } else if (pair.key() == "offset") {
      OP_LET(entry.offset, parse_size(pair.value(), "offset"));
    } else if (pair.key() == "length") {
      OP_LET(entry.length, parse_size(pair.value(), "length"));
    } else if (pair.key() != "checksum" && pair.key() != "basepath") {
      return fail(Code::bad_input, "external data: unknown key '{}'", pair.key());
    }
  }
  if (entry.location.empty()) return fail(Code::bad_input, "external data without a location");
  return entry;
}

// Resolves references to external files, each opened once, beneath the model's folder.
class ExternalFiles {
 public:
  ExternalFiles(const std::filesystem::path& model_path, const LoadOptions& options) : roots_(options.data_roots) {
    std::error_code ignored;
    folder_ = model_path.parent_path().empty() ? "." : model_path.parent_path();
    canonical_ = std::filesystem::canonical(model_path, ignored).parent_path();
  }

  Status attach(onnx::TensorProto& tensor, TensorStore& store) {
    OP_LET(const ExternalEntry entry, parse_external(tensor));
    const Dims dims(tensor.dims().begin(), tensor.dims().end());
    const auto expected = byte_count(static_cast<DType>(tensor.data_type()), dims);
    if (!expected) return fail(Code::bad_input, "external data cannot hold this type or shape");
    if (entry.length && *entry.length != *expected)
      return fail(Code::bad_input, "external data of {} bytes, {} needs {}", *entry.length, dims_text(dims), *expected);
    OP_LET(const auto file, open(entry.location));
    if (entry.offset > file->size() || *expected > file->size() - entry.offset)
      return fail(Code::bad_input, "external data [{}, +{}) runs past the end of '{}' ({} bytes)", entry.offset,
                  *expected, entry.location, file->size());
    TensorStore::attach(tensor, store.add_file(file, entry.offset, *expected, TensorStore::Origin::external));
    return {};
  }

 private:
  Result<std::shared_ptr<FileReader>> open(const std::string& location) {
    if (const auto known = files_.find(location); known != files_.end()) return known->second;
    if (files_.size() >= 4096) return fail(Code::resource, "more than 4096 external data files");
    auto file = FileReader::open_beneath(folder_, location, canonical_);
    for (const auto& root : roots_) {
      if (file) break;
      file = FileReader::open_beneath(root, location, root);
    }
    if (!file) return rethrow(std::move(file).error(), "external data");
    files_.emplace(location, *file);
    return file;
  }

  std::filesystem::path folder_, canonical_;
  std::vector<std::filesystem::path> roots_;
  std::map<std::string, std::shared_ptr<FileReader>> files_;
};

using AddSlot = std::function<Status(PayloadRange, TensorStore&)>;

Result<Model> assemble(const WireSource& source, const LoadOptions& options, const AddSlot& add_slot,
                       ExternalFiles* external) {
  if (source.size() == 0) return fail(Code::bad_input, "the file is empty");
  OP_LET(const Skeleton skeleton, scan_model(source, options.max_memory != 0 ? options.max_memory : default_memory()));
  auto proto = std::make_unique<onnx::ModelProto>();
  if (skeleton.bytes.size() > 0x7fffffffU || !proto->ParseFromString(skeleton.bytes))
    return fail(Code::bad_input, "not an ONNX model: protobuf cannot parse it");
  if (!proto->has_graph()) return fail(Code::bad_input, "not an ONNX model: it has no graph");

  auto store = std::make_shared<TensorStore>();
  for (const PayloadRange& payload : skeleton.payloads) OP_TRY(add_slot(payload, *store));
  Status status;
  for_each_tensor(*proto, [&](onnx::TensorProto& tensor, TensorPlace) {
    if (!status) return;
    status = check_payload(tensor);
    if (!status || tensor.data_location() != onnx::TensorProto::EXTERNAL) return;
    if (const auto slot = TensorStore::slot_of(tensor)) {
      status = check_stored(tensor, store->length(*slot));
    } else if (external != nullptr) {
      status = external->attach(tensor, *store);
    } else {
      status = fail(Code::bad_input, "external data needs the model as a file");
    }
    if (!status) status.error().in("tensor '" + tensor.name() + "'");
  });
  OP_TRY(std::move(status));
  Model model(std::move(proto), std::move(store));
  OP_TRY(validate_structure(model));
  return model;
}

Result<Model> load_stdin(const LoadOptions& options) {
  std::vector<std::byte> bytes;
  for (std::size_t used = 0;;) {
    if (bytes.size() < used + (1U << 20)) bytes.resize(std::max<std::size_t>(bytes.size() * 2, std::size_t{1} << 22));
    const auto got = ::read(STDIN_FILENO, bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) {
      OP_TRY(check_interrupt());
      continue;
    }
    if (got < 0) return fail(Code::io, "stdin: {}", errno_text(errno));
    if (got == 0) {
      bytes.resize(used);
      return load_model_bytes(bytes, "stdin", options);
    }
    used += static_cast<std::size_t>(got);
    if (used > (std::uint64_t{1} << 31)) return fail(Code::resource, "stdin: more than 2 GiB");
  }
}

}  // namespace

Result<Model> load_model_bytes(std::span<const std::byte> bytes, const std::string& name, const LoadOptions& options) {
  const MemorySource source(bytes);
  const auto add_slot = [&](PayloadRange range, TensorStore& store) -> Status {
    const auto part = bytes.subspan(range.offset, range.length);
    return store.add_bytes({part.begin(), part.end()}, TensorStore::Origin::raw_data).transform([](auto) {});
  };
  auto model = assemble(source, options, add_slot, nullptr);
  if (!model) return rethrow(std::move(model).error(), name);
  return model;
}

Result<Model> load_model(const std::string& path, const LoadOptions& options) {
  if (path == "-") return load_stdin(options);
  if (path.ends_with(".onnxtxt")) {
    OP_LET(const std::string text, read_text_file(path, std::uint64_t{64} << 20));
    auto model = parse_model_text(text);
    if (!model) return rethrow(std::move(model).error(), path);
    return model;
  }
  OP_LET(const auto file, FileReader::open(path));
  ExternalFiles external(path, options);
  const auto add_slot = [&](PayloadRange range, TensorStore& store) -> Status {
    store.add_file(file, range.offset, range.length, TensorStore::Origin::raw_data);
    return {};
  };
  auto model = assemble(FileSource(file), options, add_slot, &external);
  if (!model) return rethrow(std::move(model).error(), path);
  return model;
}

Result<NamedTensor> load_tensor_pb(const std::filesystem::path& path) {
  OP_LET(const auto file, FileReader::open(path));
  OP_LET(const Bytes bytes, file->read(0, file->size()));
  onnx::TensorProto proto;
  if (bytes.data.size() > 0x7fffffffU ||
      !proto.ParseFromArray(bytes.data.data(), static_cast<int>(bytes.data.size())) || !proto.has_data_type())
    return fail(Code::bad_input, "{}: not a serialized TensorProto", path.string());
  if (proto.data_location() == onnx::TensorProto::EXTERNAL)
    return fail(Code::bad_input, "{}: external data is not allowed here", path.string());
  auto tensor = TensorStore().read(proto);
  if (!tensor) return rethrow(std::move(tensor).error(), path.string());
  return NamedTensor{proto.name(), std::move(*tensor)};
}

}  // namespace onnxpress
