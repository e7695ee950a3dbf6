// The cheapest way to split a network in two: which projects to take when some need others (project selection).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxpress {

// A directed network with a source and a sink. A cut puts every vertex on the side of one of them and costs the
// capacities of the edges from the source's side to the sink's. Exact (maximum flow = minimum cut; Dinitz 1970).
class MinCut {
 public:
  static constexpr std::size_t kSource = 0, kSink = 1;
  static constexpr std::int64_t kNever = std::int64_t{1} << 50;  // an edge that is not cut

  std::size_t add_vertex();
  // Capacities are not negative; several edges between two vertices add up.
  void add_edge(std::size_t from, std::size_t to, std::int64_t capacity);

  // For every vertex whether it is on the source's side. Of several cheapest cuts the one with most vertices there.
  // The network is used up by it. Deterministic.
  std::vector<bool> solve();
  std::int64_t value() const { return value_; }  // of the cut found

 private:
  struct Edge {
    std::size_t to;
    std::int64_t left;  // residual capacity
  };
  bool rank_vertices();
  std::int64_t push(std::size_t start);

  std::vector<std::vector<std::size_t>> out_{2};  // edge numbers by vertex; edge e and its reverse e ^ 1
  std::vector<Edge> edges_;
  std::vector<std::size_t> rank_, next_;
  std::int64_t value_ = 0;
};

}  // namespace onnxpress
