#include "io/text.h"

#include <onnx/defs/parser.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <map>

#include "base/hash.h"
#include "base/text.h"
#include "io/load.h"
#include "ir/walk.h"

namespace onnxpress {
namespace {

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string identifier(std::string_view name) {
  const bool plain = !name.empty() && std::ranges::all_of(name, [](char c) {
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }) && (name[0] < '0' || name[0] > '9');
  return plain || name.empty() ? std::string(name) : quote(name);
}

// Floats always show a point or exponent: the parser tells them from integers by it.
std::string float_literal(double value, std::string text) {
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}
std::string literal(float value) { return float_literal(value, number_text(value)); }
std::string literal(double value) { return float_literal(value, number_text(value)); }
std::string literal(std::int64_t value) { return std::to_string(value); }
std::string literal(const std::string& value) { return quote(value); }

template <class Range>
std::string list(const Range& values) {
  std::string out;
  for (const auto& value : values) out += (out.empty() ? "" : ", ") + literal(value);
  return out;
}

// Writes a model as text. Holds the model for its tensor store.
class Dumper {
 public:
  Dumper(const Model& model, const DumpOptions& options) : model_(model), options_(options) {}

  Result<std::string> run() {
    const onnx::ModelProto& proto = model_.proto();
    out_ = fmt::format("<\n  ir_version: {},\n  opset_import: [{}]", proto.ir_version(), opsets(proto.opset_import()));
    if (!proto.producer_name().empty()) out_ += ",\n  producer_name: " + quote(proto.producer_name());
    if (!proto.metadata_props().empty()) {
      std::map<std::string, std::string> sorted;
      for (const auto& entry : proto.metadata_props()) sorted[entry.key()] = entry.value();
      std::string entries;
      for (const auto& [key, value] : sorted)
        entries += (entries.empty() ? "" : ", ") + quote(key) + ": " + quote(value);
      out_ += ",\n  metadata_props: [" + entries + "]";
    }
    out_ += "\n>\n";
    OP_TRY(graph(proto.graph(), 0));
    out_ += "\n";
    for (const auto& function : proto.functions()) OP_TRY(function_body(function));
    return std::move(out_);
  }

 private:
  static std::string opsets(const auto& imports) {
    std::string text;
    for (const auto& import : imports)
      text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", quote(import.domain()), import.version());
    return text;
  }

  static std::string type_text(const onnx::TypeProto& type) {
    if (!type.has_tensor_type())
      return type.has_sequence_type()   ? "seq(" + type_text(type.sequence_type().elem_type()) + ")"
             : type.has_optional_type() ? "optional(" + type_text(type.optional_type().elem_type()) + ")"
                                        : "";
    std::string text(dtype_name(static_cast<DType>(type.tensor_type().elem_type())));
    if (!type.tensor_type().has_shape()) return text + "[]";
    if (type.tensor_type().shape().dim().empty()) return text;
    std::string dims;
    for (const auto& dim : type.tensor_type().shape().dim()) {
      if (!dims.empty()) dims += ", ";
      dims += dim.has_dim_value() ? std::to_string(dim.dim_value()) : dim.dim_param().empty() ? "?" : dim.dim_param();
    }
    return text + "[" + dims + "]";
  }

  static std::string values(const auto& infos) {
    std::string text;
    for (const auto& info : infos)
      text +=
          (text.empty() ? "" : ", ") + type_text(info.type()) + (info.has_type() ? " " : "") + identifier(info.name());
    return text;
  }

  Result<std::string> tensor(const onnx::TensorProto& proto) {
    std::string text(dtype_name(static_cast<DType>(proto.data_type())));
    if (proto.dims_size() > 0) text += "[" + list(proto.dims()) + "]";
    if (!proto.name().empty()) text += " " + identifier(proto.name());
    text += proto.name().empty() ? " {" : " = {";
    if (static_cast<DType>(proto.data_type()) == DType::string) return text + list(proto.string_data()) + "}";
    OP_LET(const Tensor value, model_.store().read(proto));
    if (value.size() > options_.max_elements) return text + quote("xxh3:" + hash_hex(value.bytes())) + "}";
    return text + elements(value) + "}";
  }

  static std::string elements(const Tensor& value) {
    switch (value.dtype()) {
      case DType::f32:
        return list(value.as<float>());
      case DType::f64:
        return list(value.as<double>());
      case DType::i64:
        return list(value.as<std::int64_t>());
      case DType::i32:
        return widened<std::int32_t>(value);
      case DType::i16:
        return widened<std::int16_t>(value);
      case DType::i8:
        return widened<std::int8_t>(value);
      case DType::u64:
        return widened<std::uint64_t>(value);
      case DType::u32:
        return widened<std::uint32_t>(value);
      case DType::u16:
      case DType::f16:
      case DType::bf16:
        return widened<std::uint16_t>(value);
      case DType::c64:
      case DType::c128:
        return quote(hash_hex(value.bytes()));
      case DType::u4:
      case DType::i4:
        return nibbles(value);
      default:
        return widened<std::uint8_t>(value);
    }
  }
  static std::string nibbles(const Tensor& value) {
    std::string out;
    for (std::uint64_t i = 0; i < value.size(); ++i) {
      const int code = static_cast<int>(value.bytes()[i / 2]) >> (i % 2 * 4) & 0xF;
      const bool negative = value.dtype() == DType::i4 && code >= 8;
      out += fmt::format("{}{}", out.empty() ? "" : ", ", negative ? code - 16 : code);
    }
    return out;
  }
  template <class T>
  static std::string widened(const Tensor& value) {
    std::string out;
    for (const T element : value.as<T>()) out += fmt::format("{}{}", out.empty() ? "" : ", ", element);
    return out;
  }

  Result<std::string> attribute(const onnx::AttributeProto& proto, int depth) {
    const std::string head = identifier(proto.name());
    if (!proto.ref_attr_name().empty()) return head + ": " + type_name(proto.type()) + " = @" + proto.ref_attr_name();
    const std::string typed = head + ": " + type_name(proto.type()) + " = ";
    switch (proto.type()) {
      case onnx::AttributeProto::FLOAT:
        return typed + literal(proto.f());
      case onnx::AttributeProto::INT:
        return typed + literal(static_cast<std::int64_t>(proto.i()));
      case onnx::AttributeProto::STRING:
        return typed + quote(proto.s());
      case onnx::AttributeProto::FLOATS:
        return typed + "[" + list(proto.floats()) + "]";
      case onnx::AttributeProto::INTS:
        return typed + "[" + list(proto.ints()) + "]";
      case onnx::AttributeProto::STRINGS:
        return typed + "[" + list(proto.strings()) + "]";
      case onnx::AttributeProto::TENSOR: {
        OP_LET(const std::string value, tensor(proto.t()));
        return typed + value;
      }
      case onnx::AttributeProto::GRAPH: {
        std::string outer = std::exchange(out_, "");
        const Status status = graph(proto.g(), depth + 1);
        std::string body = std::exchange(out_, std::move(outer));
        OP_TRY(status);
        return typed + body;
      }
      default:
        return typed + quote(fmt::format("{} bytes", proto.ByteSizeLong()));
    }
  }

  static std::string type_name(onnx::AttributeProto::AttributeType type) {
    std::string name = onnx::AttributeProto::AttributeType_Name(type);
    std::ranges::transform(name, name.begin(),
                           [](char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
    return name;
  }

  Status node(const onnx::NodeProto& proto, int depth) {
    std::string outputs, inputs, attributes;
    for (const auto& output : proto.output()) outputs += (outputs.empty() ? "" : ", ") + identifier(output);
    for (int i = 0; i < proto.input_size(); ++i) inputs += (i > 0 ? ", " : "") + identifier(proto.input(i));
    std::vector<const onnx::AttributeProto*> sorted;
    for (const auto& item : proto.attribute()) sorted.push_back(&item);
    std::ranges::stable_sort(sorted, {}, [](const auto* item) { return item->name(); });
    for (const auto* item : sorted) {
      OP_LET(const std::string text, attribute(*item, depth));
      attributes += (attributes.empty() ? "" : ", ") + text;
    }
    if (!attributes.empty()) attributes = " <" + attributes + ">";
    const std::string domain = proto.domain().empty() ? "" : proto.domain() + ".";
    out_ += fmt::format("{}{} = {}{}{} ({})", indent(depth + 1), outputs, domain, proto.op_type(), attributes, inputs);
    if (options_.node_names && !proto.name().empty()) out_ += "  # " + proto.name();
    out_ += "\n";
    return {};
  }

  static std::string indent(int depth) { return std::string(static_cast<std::size_t>(depth) * 2, ' '); }

  Status graph(const onnx::GraphProto& proto, int depth) {
    out_ += fmt::format("{} ({}) => ({})", identifier(proto.name().empty() ? "g" : proto.name()), values(proto.input()),
                        values(proto.output()));
    std::vector<std::string> declared;
    for (const auto& initializer : proto.initializer()) {
      OP_LET(declared.emplace_back(), tensor(initializer));
    }
    for (const auto& info : proto.value_info())
      declared.push_back(type_text(info.type()) + " " + identifier(info.name()));
    if (!declared.empty()) out_ += "\n" + indent(depth) + "<" + join(declared, ",\n " + indent(depth)) + ">";
    out_ += "\n" + indent(depth) + "{\n";
    for (const auto& sparse : proto.sparse_initializer())
      out_ += fmt::format("{}# sparse initializer {} [{}]\n", indent(depth + 1), sparse.values().name(),
                          list(sparse.dims()));
    for (const auto& item : proto.node()) OP_TRY(node(item, depth));
    out_ += indent(depth) + "}";
    return {};
  }

  Status function_body(const onnx::FunctionProto& proto) {
    out_ += fmt::format("<\n  domain: {},\n  opset_import: [{}]\n>\n{}", quote(proto.domain()),
                        opsets(proto.opset_import()), identifier(proto.name()));
    if (!proto.attribute().empty())
      out_ += " <" + join(std::vector<std::string>(proto.attribute().begin(), proto.attribute().end()), ", ") + ">";
    out_ += fmt::format(" ({}) => ({})\n{{\n", names(proto.input()), names(proto.output()));
    for (const auto& item : proto.node()) OP_TRY(node(item, 0));
    out_ += "}\n";
    return {};
  }
  static std::string names(const auto& field) {
    std::string text;
    for (const auto& name : field) text += (text.empty() ? "" : ", ") + identifier(name);
    return text;
  }

  const Model& model_;
  const DumpOptions& options_;
  std::string out_;
};

// The parser of onnx 1.17 leaves 4-bit values one to an int32_data entry; onnx.proto wants two, low nibble first.
// A text may also give them packed already.
void pack_nibbles(onnx::TensorProto& tensor) {
  const auto dtype = static_cast<DType>(tensor.data_type());
  const auto elements = element_count(std::vector<std::int64_t>(tensor.dims().begin(), tensor.dims().end()));
  const auto values = tensor.int32_data();
  if (!is_known(dtype) || bit_width(dtype) != 4 || elements != static_cast<std::uint64_t>(values.size())) return;
  tensor.clear_int32_data();
  for (int i = 0; i < values.size(); i += 2)
    tensor.add_int32_data((values[i] & 0xF) | (i + 1 < values.size() ? (values[i + 1] & 0xF) << 4 : 0));
}

}  // namespace

Result<Model> parse_model_text(std::string_view text) {
  onnx::ModelProto proto;
  const std::string copy(text);
  try {
    onnx::OnnxParser parser(copy.c_str());
    const auto status = parser.Parse(proto);
    if (!status.IsOK()) return fail(Code::bad_input, "ONNX text: {}", trim(status.ErrorMessage()));
    if (!parser.EndOfInput()) return fail(Code::bad_input, "ONNX text: unexpected text after the model");
  } catch (const std::exception& error) {
    return fail(Code::bad_input, "ONNX text: {}", error.what());
  }
  for_each_tensor(proto, [](onnx::TensorProto& tensor, TensorPlace) { pack_nibbles(tensor); });
  const std::string bytes = proto.SerializeAsString();
  return load_model_bytes(std::as_bytes(std::span(bytes)), "ONNX text");
}

Result<std::string> dump_model_text(const Model& model, const DumpOptions& options) {
  return Dumper(model, options).run();
}

}  // namespace onnxpress
