#include "num/min_cut.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <random>

namespace onnxpress {
namespace {

TEST_CASE("MinCut: a textbook network") {
  MinCut cut;
  const auto a = cut.add_vertex(), b = cut.add_vertex(), c = cut.add_vertex(), d = cut.add_vertex();
  cut.add_edge(MinCut::kSource, a, 10);
  cut.add_edge(MinCut::kSource, c, 10);
  cut.add_edge(a, b, 4);
  cut.add_edge(a, d, 8);
  cut.add_edge(a, c, 2);
  cut.add_edge(c, d, 9);
  cut.add_edge(d, b, 6);
  cut.add_edge(b, MinCut::kSink, 10);
  cut.add_edge(d, MinCut::kSink, 10);
  cut.solve();
  CHECK(cut.value() == 19);
}

TEST_CASE("MinCut: of equal cuts the one with most vertices on the source's side") {
  MinCut cut;
  const auto a = cut.add_vertex(), b = cut.add_vertex(), alone = cut.add_vertex();
  cut.add_edge(MinCut::kSource, a, 3);
  cut.add_edge(a, b, 3);
  cut.add_edge(b, MinCut::kSink, 3);
  CHECK(cut.solve() == std::vector<bool>{true, false, true, true, true});
  CHECK(alone == 4);
  CHECK(cut.value() == 3);
}

TEST_CASE("MinCut: no edges, no cost") {
  MinCut cut;
  CHECK(cut.solve() == std::vector<bool>{true, false});
  CHECK(cut.value() == 0);
}

TEST_CASE("MinCut finds what trying every split finds") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const std::size_t inner = 1 + random() % 8;
    const std::size_t vertices = inner + 2;
    struct Edge {
      std::size_t from, to;
      std::int64_t capacity;
    };
    std::vector<Edge> edges;
    for (std::size_t i = 0; i < vertices * 3; ++i) {
      const bool never = random() % 10 == 0;
      edges.push_back({random() % vertices, random() % vertices,
                       never ? MinCut::kNever : static_cast<std::int64_t>(random() % 20)});
    }
    MinCut cut;
    for (std::size_t i = 0; i < inner; ++i) cut.add_vertex();
    for (const Edge& edge : edges) cut.add_edge(edge.from, edge.to, edge.capacity);
    // Sums of "never" edges are compared as one.
    const auto cost = [&](const auto& side) {
      std::int64_t total = 0;
      for (const Edge& edge : edges)
        if (side(edge.from) && !side(edge.to)) total = std::min(total + edge.capacity, MinCut::kNever);
      return total;
    };
    std::int64_t best = MinCut::kNever;
    for (std::size_t split = 0; split < (std::size_t{1} << inner); ++split)
      best = std::min(best, cost([&](std::size_t v) { return v == 0 || (v > 1 && (split >> (v - 2) & 1) != 0); }));
    const std::vector<bool> found = cut.solve();
    INFO("round " << round);
    CHECK(found[MinCut::kSource]);
    CHECK_FALSE(found[MinCut::kSink]);
    CHECK(std::min(cut.value(), MinCut::kNever) == best);
    CHECK(cost([&](std::size_t v) { return static_cast<bool>(found[v]); }) == best);
  }
}

}  // namespace
}  // namespace onnxpress
