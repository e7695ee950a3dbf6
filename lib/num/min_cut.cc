#include "num/min_cut.h"

#include <algorithm>
#include <cassert>
#include <limits>

namespace onnxpress {
namespace {

constexpr std::size_t kUnranked = std::numeric_limits<std::size_t>::max();

}  // namespace

std::size_t MinCut::add_vertex() {
  out_.emplace_back();
  return out_.size() - 1;
}

void MinCut::add_edge(std::size_t from, std::size_t to, std::int64_t capacity) {
  assert(capacity >= 0 && from < out_.size() && to < out_.size());
  if (capacity == 0 || from == to) return;
  out_[from].push_back(edges_.size());
  edges_.push_back({to, std::min(capacity, kNever)});
  out_[to].push_back(edges_.size());
  edges_.push_back({from, 0});
}

// Distance of each vertex from the source over edges with capacity left; whether the sink can be reached.
bool MinCut::rank_vertices() {
  rank_.assign(out_.size(), kUnranked);
  std::vector<std::size_t> queue = {kSource};
  rank_[kSource] = 0;
  for (std::size_t head = 0; head < queue.size(); ++head)
    for (const std::size_t e : out_[queue[head]])
      if (edges_[e].left > 0 && rank_[edges_[e].to] == kUnranked) {
        rank_[edges_[e].to] = rank_[queue[head]] + 1;
        queue.push_back(edges_[e].to);
      }
  return rank_[kSink] != kUnranked;
}

// One augmenting path along rising ranks, found depth first without recursion (graphs have tens of thousands of
// nodes in a row). Returns what it carries, 0 when there is none left in this phase.
std::int64_t MinCut::push(std::size_t start) {
  std::vector<std::size_t> path;  // edge numbers
  std::size_t at = start;
  while (at != kSink) {
    bool advanced = false;
    for (std::size_t& i = next_[at]; i < out_[at].size(); ++i) {
      const Edge& edge = edges_[out_[at][i]];
      if (edge.left <= 0 || rank_[edge.to] != rank_[at] + 1) continue;
      path.push_back(out_[at][i]);
      at = edge.to;
      advanced = true;
      break;
    }
    if (advanced) continue;
    if (path.empty()) return 0;
    at = edges_[path.back() ^ 1].to;
    path.pop_back();
    ++next_[at];
  }
  std::int64_t carried = kNever;
  for (const std::size_t e : path) carried = std::min(carried, edges_[e].left);
  for (const std::size_t e : path) {
    edges_[e].left -= carried;
    edges_[e ^ 1].left += carried;
  }
  return carried;
}

std::vector<bool> MinCut::solve() {
  while (rank_vertices()) {
    next_.assign(out_.size(), 0);
    while (const std::int64_t carried = push(kSource)) value_ += carried;
  }
  // On the sink's side is only what can still reach the sink.
  std::vector<bool> source_side(out_.size(), true);
  std::vector<std::size_t> queue = {kSink};
  source_side[kSink] = false;
  for (std::size_t head = 0; head < queue.size(); ++head)
    for (const std::size_t e : out_[queue[head]])
      if (edges_[e ^ 1].left > 0 && source_side[edges_[e].to]) {
        source_side[edges_[e].to] = false;
        queue.push_back(edges_[e].to);
      }
  return source_side;
}

}  // namespace onnxpress
