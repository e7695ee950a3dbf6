// How sparse weights are to become: the options that the passes share which zero single weights.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pass/options.h"
#include "pass/selector.h"

namespace onnxpress {

// N:M sparsity: of `group` weights in a row at most `keep` are not zero. The default is no pattern.
struct NmPattern {
  std::int64_t keep = 0, group = 0;

  bool given() const { return group > 0; }
  // Zeros in a group of `size` weights: the last one of a row may be smaller and keeps at least the same share.
  std::size_t zeros(std::size_t size) const;
  double share() const { return 1 - static_cast<double>(keep) / static_cast<double>(group); }
};
Status parse_option(const OptionText& text, NmPattern& out);
std::string print_option(const NmPattern& pattern);
template <>
std::string option_type<NmPattern>();

// [SELECTOR=SHARE, ...]: how sparse single layers are to be.
struct LayerShares {
  struct Item {
    Selector selector;
    double share = 0;
  };
  std::vector<Item> items;

  // Of the first selector that matches.
  std::optional<double> of(const Node& node) const;
};
Status parse_option(const OptionText& text, LayerShares& out);
std::string print_option(const LayerShares& shares);
template <>
std::string option_type<LayerShares>();

struct SparsityTarget {
  double sparsity = 0.5;
  NmPattern pattern;
  LayerShares layers;
  bool ends = true;
  std::int64_t min_elements = 256;

  static void describe(Schema<SparsityTarget>& schema);
};

// Sets scores to 0 where weights are to go: in every group of M along the rows (row-major, `length` each) those with
// the least score, the first ones at ties, until the pattern holds. Scores are not negative; zeros that are there
// count.
void keep_pattern(std::span<double> scores, std::size_t length, const NmPattern& pattern);

// The same for the `zeros` least scores.
void keep_largest(std::span<double> scores, std::size_t zeros);

std::string sparsity_text(std::uint64_t zeros, std::uint64_t size);  // "48.00 %"

}  // namespace onnxpress
