#include "quant/packed_matrix.h"

#include <fmt/format.h>

#include <cassert>

namespace onnxpress {
namespace {

std::uint8_t nibble(std::span<const std::byte> bytes, std::size_t i) {
  const auto byte = static_cast<std::uint8_t>(bytes[i / 2]);
  return static_cast<std::uint8_t>(i % 2 == 0 ? byte & 15 : byte >> 4);
}

// Rows of 4-bit values, each row starting at a byte of its own and filled up to `stride` values.
std::vector<std::byte> pack_rows(std::size_t rows, std::size_t length, std::size_t stride, std::uint8_t fill,
                                 const auto& value) {
  std::vector<std::byte> out(rows * stride / 2);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t k = 0; k < stride; k += 2) {
      const auto at = [&](std::size_t i) { return i < length ? value(r * length + i) : fill; };
      out[(r * stride + k) / 2] = static_cast<std::byte>(at(k) | at(k + 1) << 4);
    }
  return out;
}

// Adds nodes before one that they replace.
class Chain {
 public:
  Chain(Rewriter& rewriter, const Node& node) : rewriter_(rewriter), node_(node) {}

  std::string add(const char* op, std::vector<std::string> inputs, std::string output = {},
                  std::vector<std::pair<std::string, AttributeValue>> attributes = {}, const char* domain = "") {
    if (output.empty()) output = rewriter_.fresh_value(fmt::format("{}_{}", node_.output(0), op));
    rewriter_.insert_before(node_, {.op = op,
                                    .inputs = std::move(inputs),
                                    .outputs = {output},
                                    .attributes = std::move(attributes),
                                    .domain = domain,
                                    .name = rewriter_.fresh_node(fmt::format("{}_{}", node_.label(), op))});
    return output;
  }
  // [0, 0, ..] (the axes of the index as they are), then `tail`.
  std::string dims(std::size_t kept, const Dims& tail) {
    Dims values(kept, 0);
    values.insert(values.end(), tail.begin(), tail.end());
    std::string name = rewriter_.fresh_value(fmt::format("{}_dims", node_.output(0)));
    rewriter_.add_initializer(name, Tensor::of_int64s({static_cast<std::int64_t>(values.size())}, values));
    return name;
  }

 private:
  Rewriter& rewriter_;
  const Node& node_;
};

}  // namespace

PackedMatrix add_packed_matrix(Rewriter& rewriter, const WeightJob& job, const QuantizedWeight& weight) {
  assert(weight.codes.dtype() == DType::u4 && job.block > 0 && weight.codes.dims().size() == 2);
  PackedMatrix out{.rows = weight.codes.dims()[0], .columns = weight.codes.dims()[1], .block = job.block};
  const std::int64_t blocks = weight.block_dims[1];
  const auto rows = static_cast<std::size_t>(out.rows), columns = static_cast<std::size_t>(out.columns);
  const auto add = [&](const char* suffix, Tensor value) {
    std::string name = rewriter.fresh_value(job.name + suffix);
    rewriter.add_initializer(name, std::move(value));
    return name;
  };
  const auto codes = weight.codes.bytes();
  out.codes = add("_packed", Tensor(DType::u8, {out.rows, blocks, job.block / 2},
                                    pack_rows(rows, columns, static_cast<std::size_t>(blocks * job.block), 8,
                                              [&](std::size_t i) { return nibble(codes, i); })));
  out.scale = add("_scale", weight.scale_tensor(true));
  if (!job.symmetric) {
    const auto stride = static_cast<std::size_t>((blocks + 1) / 2 * 2);
    const auto zero = [&](std::size_t i) { return static_cast<std::uint8_t>(weight.zero_points[i]); };
    out.zero_point = add("_zero_point", Tensor(DType::u8, {out.rows, (blocks + 1) / 2},
                                               pack_rows(rows, static_cast<std::size_t>(blocks), stride, 8, zero)));
  }
  return out;
}

void emit_matmul_nbits(Rewriter& rewriter, const Node& node, const PackedMatrix& matrix, std::string_view bias) {
  Chain chain(rewriter, node);
  std::vector<std::string> inputs = {std::string(node.input(0)), matrix.codes, matrix.scale};
  if (!matrix.zero_point.empty()) inputs.push_back(matrix.zero_point);
  const std::string y(node.output(0));
  const std::string product = chain.add("MatMulNBits", std::move(inputs), bias.empty() ? y : "",
                                        {{"K", matrix.columns},
                                         {"N", matrix.rows},
                                         {"accuracy_level", std::int64_t{4}},
                                         {"bits", std::int64_t{4}},
                                         {"block_size", matrix.block}},
                                        "com.microsoft");
  if (!bias.empty()) chain.add("Add", {product, std::string(bias)}, y);
  rewriter.erase(node);
}

Status emit_rows(Rewriter& rewriter, WeightStore& store, const Node& node, const PackedMatrix& matrix,
                 std::size_t index_rank) {
  assert(matrix.zero_point.empty() && matrix.columns % matrix.block == 0);
  OP_LET(const std::string table, store.table(DType::u4, DType::f32, 8));
  Chain chain(rewriter, node);
  const std::string index(node.input(1));
  const std::int64_t blocks = matrix.columns / matrix.block;
  const std::string bytes = chain.add("Gather", {matrix.codes, index});  // [.., blocks, block / 2]
  const std::string wide = chain.add("Cast", {bytes}, {}, {{"to", static_cast<std::int64_t>(DType::i32)}});
  const std::string pairs = chain.add("Gather", {table, wide});
  const std::string codes = chain.add("Reshape", {pairs, chain.dims(index_rank, {blocks, matrix.block})});
  const std::string rows = chain.add("Gather", {matrix.scale, index});
  const std::string scale = chain.add("Reshape", {rows, chain.dims(index_rank, {blocks, 1})});
  const std::string values = chain.add("Mul", {codes, scale});
  chain.add("Reshape", {values, chain.dims(index_rank, {matrix.columns})}, std::string(node.output(0)));
  rewriter.erase(node);
  return {};
}

}  // namespace onnxpress
