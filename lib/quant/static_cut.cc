#include "quant/static_cut.h"

#include <cassert>
#include <cmath>
#include <cstdint>

#include "num/min_cut.h"

namespace onnxpress {
namespace {

// Capacities are whole picoseconds.
std::int64_t capacity(double microseconds) {
  assert(microseconds >= 0);
  return std::isinf(microseconds) ? MinCut::kNever : std::llround(std::min(microseconds, 1e8) * 1e6);
}

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

std::vector<std::size_t> makers_of(const std::vector<CutNode>& nodes, std::size_t values) {
  std::vector<std::size_t> makers(values, kNone);
  for (std::size_t n = 0; n < nodes.size(); ++n)
    for (const std::size_t v : nodes[n].makes) makers[v] = n;
  return makers;
}

std::vector<std::vector<std::size_t>> readers_of(const std::vector<CutNode>& nodes, std::size_t values) {
  std::vector<std::vector<std::size_t>> readers(values);
  for (std::size_t n = 0; n < nodes.size(); ++n)
    for (const std::size_t v : nodes[n].reads) readers[v].push_back(n);
  return readers;
}

}  // namespace

std::vector<bool> cheapest_choice(const std::vector<CutNode>& nodes, const std::vector<CutValue>& values) {
  MinCut cut;
  std::vector<std::size_t> vertex;
  for (const CutNode& node : nodes) {
    vertex.push_back(cut.add_vertex());
    cut.add_edge(MinCut::kSource, vertex.back(), capacity(node.real));
    cut.add_edge(vertex.back(), MinCut::kSink, capacity(node.integer));
  }
  const auto makers = makers_of(nodes, values.size());
  const auto readers = readers_of(nodes, values.size());
  for (std::size_t v = 0; v < values.size(); ++v) {
    const std::size_t maker = makers[v];
    // On the source's side as soon as one reader is: quantizing is paid once, unless the maker is there too.
    const std::size_t codes = cut.add_vertex();
    for (const std::size_t reader : readers[v]) cut.add_edge(vertex[reader], codes, MinCut::kNever);
    cut.add_edge(codes, maker == kNone ? MinCut::kSink : vertex[maker], capacity(values[v].quantize));
    if (maker == kNone || nodes[maker].gives_float) continue;
    // On the sink's side as soon as one reader is: dequantizing is paid once, if the maker is integer.
    const std::size_t floats = cut.add_vertex();
    for (const std::size_t reader : readers[v]) cut.add_edge(floats, vertex[reader], MinCut::kNever);
    if (values[v].float_reader) cut.add_edge(floats, MinCut::kSink, MinCut::kNever);
    cut.add_edge(vertex[maker], floats, capacity(values[v].dequantize));
  }
  const std::vector<bool> side = cut.solve();
  std::vector<bool> integer;
  for (const std::size_t v : vertex) integer.push_back(side[v]);
  return integer;
}

double choice_time(const std::vector<CutNode>& nodes, const std::vector<CutValue>& values,
                   const std::vector<bool>& integer) {
  double time = 0;
  for (std::size_t n = 0; n < nodes.size(); ++n) time += integer[n] ? nodes[n].integer : nodes[n].real;
  const auto makers = makers_of(nodes, values.size());
  const auto readers = readers_of(nodes, values.size());
  for (std::size_t v = 0; v < values.size(); ++v) {
    const std::size_t maker = makers[v];
    const bool made_of_codes = maker != kNone && integer[maker];
    bool read_as_codes = false, read_as_floats = values[v].float_reader;
    for (const std::size_t reader : readers[v]) (integer[reader] ? read_as_codes : read_as_floats) = true;
    if (read_as_codes && !made_of_codes) time += values[v].quantize;
    if (read_as_floats && made_of_codes && !nodes[maker].gives_float) time += values[v].dequantize;
  }
  return time;
}

}  // namespace onnxpress
