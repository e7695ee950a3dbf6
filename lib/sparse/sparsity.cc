#include "sparse/sparsity.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/text.h"

namespace onnxpress {
namespace {

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

}  // namespace

std::size_t NmPattern::zeros(std::size_t size) const {
  return static_cast<std::size_t>(group - keep) * size / static_cast<std::size_t>(group);
}

Status parse_option(const OptionText& text, NmPattern& out) {
  const auto bad = fail(Code::usage, "not N:M with 0 < N < M, such as 2:4");
  if (text.is_list) return bad;
  const std::vector<std::string> parts = split(text.items.front(), ':');
  if (parts.size() != 2) return bad;
  const auto keep = number<std::int64_t>(parts[0]), group = number<std::int64_t>(parts[1]);
  if (!keep || !group || *keep < 1 || *group <= *keep || *group > 65536) return bad;
  out = {*keep, *group};
  return {};
}
std::string print_option(const NmPattern& pattern) {
  return pattern.given() ? fmt::format("{}:{}", pattern.keep, pattern.group) : "";
}
template <>
std::string option_type<NmPattern>() {
  return "N:M";
}

std::optional<double> LayerShares::of(const Node& node) const {
  const auto found = std::ranges::find_if(items, [&](const Item& item) { return item.selector.matches(node); });
  return found == items.end() ? std::nullopt : std::optional(found->share);
}
Status parse_option(const OptionText& text, LayerShares& out) {
  out.items.clear();
  for (const std::string& item : text.items) {
    const std::size_t equals = item.rfind('=');
    const auto share = equals == std::string::npos ? std::nullopt : number<double>(item.substr(equals + 1));
    if (!share || !(*share >= 0 && *share <= 1))
      return fail(Code::usage, "'{}' is not SELECTOR=SHARE with a share from 0 to 1", item);
    OP_LET(Selector selector, Selector::parse(item.substr(0, equals)));
    out.items.push_back({std::move(selector), *share});
  }
  return {};
}
std::string print_option(const LayerShares& shares) {
  std::vector<std::string> items;
  for (const LayerShares::Item& item : shares.items)
    items.push_back(item.selector.text() + "=" + print_option(item.share));
  return items.empty() ? "" : print_option(items);
}
template <>
std::string option_type<LayerShares>() {
  return "list of SELECTOR=SHARE";
}

void SparsityTarget::describe(Schema<SparsityTarget>& schema) {
  schema.add("sparsity", &SparsityTarget::sparsity, "share of the weights that is zero afterwards", {0, 1})
      .add("pattern", &SparsityTarget::pattern,
           "N:M instead of a share: of M weights in a row at most N stay, counted along the axis that is summed over "
           "(of a Conv: input channels and kernel as they lie)")
      .add("layers", &SparsityTarget::layers,
           "other shares for single layers, as [\"SELECTOR=SHARE\"]; the first selector that matches counts, 0 leaves "
           "a layer as it is")
      .add("ends", &SparsityTarget::ends, "prune the first and the last of the layers as well")
      .add("min_elements", &SparsityTarget::min_elements, "smaller tensors are left as they are", {0, {}});
}

void keep_largest(std::span<double> scores, std::size_t zeros) {
  if (zeros == 0) return;
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0UZ);
  const auto less = [&](std::size_t a, std::size_t b) {
    return scores[a] != scores[b] ? scores[a] < scores[b] : a < b;
  };
  std::ranges::nth_element(order, order.begin() + static_cast<std::ptrdiff_t>(zeros - 1), less);
  for (std::size_t i = 0; i < zeros; ++i) scores[order[i]] = 0;
}

void keep_pattern(std::span<double> scores, std::size_t length, const NmPattern& pattern) {
  const auto group = static_cast<std::size_t>(pattern.group);
  for (std::size_t row = 0; row < scores.size(); row += length)
    for (std::size_t at = 0; at < length; at += group) {
      const std::size_t size = std::min(group, length - at);
      keep_largest(scores.subspan(row + at, size), pattern.zeros(size));
    }
}

std::string sparsity_text(std::uint64_t zeros, std::uint64_t size) {
  return fmt::format("{:.2f} %",
                     100 * static_cast<double>(zeros) / static_cast<double>(std::max<std::uint64_t>(size, 1)));
}

}  // namespace onnxpress
