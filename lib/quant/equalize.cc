#include "quant/equalize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;
constexpr int kSweeps = 8;
constexpr double kTiny = 1e-300;

// A layer as the search needs it.
struct Work {
  ChannelLayout layout;  // of `peak`: one element a pair of channels
  std::vector<float> peak;  // max |W| over the kernel
  double taps = 1;          // kernel positions
  std::vector<std::size_t> in, out;  // roots
  Doubles power, in_peak, weight_in;  // E[x^2], max|x|, h of this layer alone
  Doubles gain;                       // g
};

Result<Doubles> read_weight(const Linear& linear) {
  OP_LET(const auto tensor, linear.node.graph().constant(linear.node.input(1)));
  return to_doubles(tensor->view());
}

Result<Work> open_layer(const ChannelGraph& channels, const ChannelLayer& layer, const LayerActivity* activity) {
  Work work;
  const ChannelLayout& full = layer.linear.layout;
  work.layout = full;
  work.layout.inner = 1;
  work.taps = static_cast<double>(full.inner);
  work.peak.resize(full.rows * full.cols);
  for (const std::size_t id : layer.in) work.in.push_back(channels.root(id));
  for (const std::size_t id : layer.out) work.out.push_back(channels.root(id));
  OP_LET(const Doubles weight, read_weight(layer.linear));
  work.weight_in.assign(work.in.size(), 0);
  Doubles importance(work.out.size(), 0);
  if (activity != nullptr) {
    double typical = 0;
    for (const double spread : activity->out_spread) typical += spread / static_cast<double>(work.out.size());
    for (std::size_t o = 0; o < work.out.size(); ++o)  // an output that never varies would weigh infinitely much
      importance[o] = activity->out_passing[o] / (activity->out_spread[o] + 1e-3 * typical + kTiny) /
                      static_cast<double>(work.out.size());
    work.power = activity->in_power;
    work.in_peak = activity->in_peak;
  }
  full.each([&](std::size_t at, std::size_t o, std::size_t i) {
    double top = 0, squares = 0;
    for (std::size_t k = at; k < at + full.inner; ++k) {
      top = std::max(top, std::abs(weight[k]));
      squares += weight[k] * weight[k];
    }
    work.peak[at / full.inner] = static_cast<float>(top);
    work.weight_in[i] += squares * importance[o];
  });
  return work;
}

// The free classes among the outputs of a layer, each once.
std::vector<std::size_t> block_of(const Work& work) {
  std::vector<std::size_t> roots;
  for (const std::size_t id : work.out)
    if (id != 0) roots.push_back(id);
  std::ranges::sort(roots);
  roots.erase(std::ranges::unique(roots).begin(), roots.end());
  return roots;
}

class Search {
 public:
  Search(std::vector<Work> layers, std::size_t ids, const FactorLimits& limits, const EqualizeSettings& settings)
      : layers_(std::move(layers)), limits_(limits), settings_(settings), s_(ids, 1.0), slot_(ids, kNone) {
    for (std::size_t k = 0; k < layers_.size(); ++k) blocks_.push_back(block_of(layers_[k]));
  }

  Doubles by_ranges() {
    for (int sweep = 0; sweep < 50; ++sweep) {
      double moved = 0;
      for (const auto& block : blocks_) {
        if (block.empty()) continue;
        const Terms terms = terms_of(block);
        for (std::size_t j = 0; j < block.size(); ++j) {
          if (!(terms.made[j] > 0 && terms.read[j] > 0)) continue;  // a dead channel
          const double next = within(std::sqrt(terms.made[j] / terms.read[j]), block[j]);
          moved = std::max(moved, std::abs(std::log(next / s_[block[j]])));
          s_[block[j]] = next;
        }
      }
      if (moved < 1e-4) break;
    }
    return s_;
  }

  Doubles by_noise() {
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      bool better = false;
      for (const auto& block : blocks_)
        if (!block.empty()) better |= improve(block);
      if (!better) break;
    }
    return s_;
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  // What the error depends on, per class of a block: alpha s^2 + beta / s^2, each with the ceiling it was taken at.
  struct Terms {
    Doubles make, make_low;    // weights that make it, relative to the present R: s >= make_low / m1
    Doubles hear, hear_low;    // activations
    Doubles take, take_high;   // weights that read it: s <= take_high * m2
    Doubles made, read;        // largest |weight|, for by_ranges()
    double make_rest = 0, hear_rest = 0, take_rest = 0;  // what lies outside the block, relative to the present
    std::vector<std::size_t> touched;                    // layers
  };

  double within(double factor, std::size_t root) const {
    const double low = std::max(limits_.low[root], 1 / settings_.largest_factor);
    const double high = std::min(limits_.high[root], settings_.largest_factor);
    return std::clamp(factor, std::min(low, high), high);
  }

  // N of the weights and A of the input, at the present factors.
  double noise(const Work& work) const {
    Doubles largest(work.out.size(), 0), power(work.out.size(), 0);
    work.layout.each([&](std::size_t at, std::size_t o, std::size_t i) {
      const double in = s_[work.in[i]];
      largest[o] = std::max(largest[o], static_cast<double>(work.peak[at]) * in / s_[work.out[o]]);
      power[o] += work.power[i] / (in * in);
    });
    const double top = largest.empty() ? 0 : std::ranges::max(largest);
    double weights = 0;
    for (std::size_t o = 0; o < work.out.size(); ++o) {
      const double range = settings_.per_channel ? largest[o] : top;
      weights += range * range * power[o] * work.gain[o] * s_[work.out[o]] * s_[work.out[o]];
    }
    double peak = 0, heard = 0;
    for (std::size_t i = 0; i < work.in.size(); ++i) {
      peak = std::max(peak, work.in_peak[i] / s_[work.in[i]]);
      heard += work.weight_in[i] * s_[work.in[i]] * s_[work.in[i]];
    }
    return weights * work.taps / (127.0 * 127 * 12) + peak * peak * heard / (255.0 * 255 * 12);
  }

  double noise(const std::vector<std::size_t>& touched) const {
    double sum = 0;
    for (const std::size_t k : touched) sum += noise(layers_[k]);
    return sum;
  }

  Terms terms_of(const std::vector<std::size_t>& block) {
    Terms terms;
    const std::size_t n = block.size();
    for (Doubles* list : {&terms.make, &terms.make_low, &terms.hear, &terms.hear_low, &terms.take, &terms.made,
                          &terms.read})
      list->assign(n, 0);
    terms.take_high.assign(n, HUGE_VAL);
    for (std::size_t j = 0; j < n; ++j) slot_[block[j]] = j;
    const auto inside = [&](std::size_t root) { return slot_[root] != kNone; };
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      const bool makes = std::ranges::any_of(layers_[k].out, inside), reads = std::ranges::any_of(layers_[k].in, inside);
      if (makes || reads) terms.touched.push_back(k);
      if (makes) add_maker(layers_[k], terms);
      if (reads) add_reader(layers_[k], terms);
    }
    for (const std::size_t root : block) slot_[root] = kNone;
    return terms;
  }

  // Weights per output channel do not care how their outputs are scaled.
  void add_maker(const Work& work, Terms& terms) const {
    Doubles row(work.out.size(), 0), power(work.out.size(), 0);
    work.layout.each([&](std::size_t at, std::size_t o, std::size_t i) {
      row[o] = std::max(row[o], static_cast<double>(work.peak[at]) * s_[work.in[i]]);
      if (!work.power.empty()) power[o] += work.power[i] / (s_[work.in[i]] * s_[work.in[i]]);
    });
    double range = kTiny;
    for (std::size_t o = 0; o < row.size(); ++o) range = std::max(range, row[o] / s_[work.out[o]]);
    const double unit = range * range * work.taps / (127.0 * 127 * 12);
    for (std::size_t o = 0; o < row.size(); ++o) {
      const std::size_t j = slot_[work.out[o]];
      if (j == kNone) {
        terms.make_rest = std::max(terms.make_rest, row[o] / s_[work.out[o]] / range);
        continue;
      }
      terms.made[j] = std::max(terms.made[j], row[o]);
      if (settings_.per_channel || work.power.empty()) continue;
      terms.make_low[j] = std::max(terms.make_low[j], row[o] / range);
      terms.make[j] += unit * work.gain[o] * power[o];
    }
  }

  void add_reader(const Work& work, Terms& terms) const {
    const bool measured = !work.power.empty();
    Doubles largest(work.out.size(), kTiny), column(work.in.size(), 0), gain(work.in.size(), 0), high(work.in.size(), 0);
    work.layout.each([&](std::size_t at, std::size_t o, std::size_t i) {
      largest[o] = std::max(largest[o], static_cast<double>(work.peak[at]) * s_[work.in[i]] / s_[work.out[o]]);
    });
    if (!settings_.per_channel) largest.assign(largest.size(), std::ranges::max(largest));
    work.layout.each([&](std::size_t at, std::size_t o, std::size_t i) {
      const double weight = static_cast<double>(work.peak[at]) / s_[work.out[o]];
      column[i] = std::max(column[i], weight);
      high[i] = std::max(high[i], weight / largest[o]);
      if (measured) gain[i] += work.gain[o] * s_[work.out[o]] * s_[work.out[o]] * largest[o] * largest[o];
    });
    // One input per output: a scale per output channel follows it.
    const bool indifferent = settings_.per_channel && work.layout.inputs() == work.layout.groups;
    double peak = kTiny;
    for (std::size_t i = 0; measured && i < work.in.size(); ++i)
      peak = std::max(peak, work.in_peak[i] / s_[work.in[i]]);
    for (std::size_t i = 0; i < work.in.size(); ++i) {
      const std::size_t j = slot_[work.in[i]];
      const double s = s_[work.in[i]];
      if (j == kNone) {
        if (!indifferent) terms.take_rest = std::max(terms.take_rest, high[i] * s);
        if (measured) terms.hear_rest = std::max(terms.hear_rest, work.in_peak[i] / s / peak);
        continue;
      }
      terms.read[j] = std::max(terms.read[j], column[i]);
      if (!measured) continue;
      if (!indifferent) {
        terms.take[j] += work.power[i] * gain[i] * work.taps / (127.0 * 127 * 12);
        if (high[i] > 0) terms.take_high[j] = std::min(terms.take_high[j], 1 / high[i]);
      }
      terms.hear[j] += peak * peak * work.weight_in[i] / (255.0 * 255 * 12);
      terms.hear_low[j] = std::max(terms.hear_low[j], work.in_peak[i] / peak);
    }
  }

  using Ceilings = std::array<double, 3>;  // m1, m2, m3: logs of the ceilings on make, take, hear

  // The best factors below the ceilings, and the error they give (up to what the block cannot change).
  double propose(const std::vector<std::size_t>& block, const Terms& terms, const Ceilings& at, Doubles& s) const {
    const double m1 = std::exp(at[0]), m2 = std::exp(at[1]), m3 = std::exp(at[2]);
    s.resize(block.size());
    double make = terms.make_rest, take = terms.take_rest, hear = terms.hear_rest;
    for (std::size_t j = 0; j < block.size(); ++j) {
      const double alpha = m1 * m1 * terms.make[j] + m3 * m3 * terms.hear[j], beta = m2 * m2 * terms.take[j];
      const double free = std::pow((beta + kTiny) / (alpha + kTiny), 0.25);
      const double low = std::max(terms.make_low[j] / m1, terms.hear_low[j] / m3);
      s[j] = within(std::min(std::max(free, low), terms.take_high[j] * m2), block[j]);
      make = std::max(make, terms.make_low[j] / s[j]);
      hear = std::max(hear, terms.hear_low[j] / s[j]);
      take = std::max(take, s[j] / terms.take_high[j]);
    }
    double error = 0;
    for (std::size_t j = 0; j < block.size(); ++j)
      error += (make * make * terms.make[j] + hear * hear * terms.hear[j]) * s[j] * s[j] +
               take * take * terms.take[j] / (s[j] * s[j]);
    return error;
  }

  bool improve(const std::vector<std::size_t>& block) {
    const Terms terms = terms_of(block);
    Doubles best, trial;
    double least = HUGE_VAL;
    Ceilings center = {0, 0, 0};
    for (const double step : {1.0, 0.25}) {
      const Ceilings from = center;
      for (int a = -4; a <= 4; ++a)
        for (int b = -4; b <= 4; ++b)
          for (int c = -4; c <= 4; ++c) {
            const Ceilings at = {from[0] + a * step, from[1] + b * step, from[2] + c * step};
            const double error = propose(block, terms, at, trial);
            if (!(error < least)) continue;
            least = error;
            best = trial;
            center = at;
          }
    }
    if (best.empty()) return false;
    const double before = noise(terms.touched);
    Doubles old;
    for (std::size_t j = 0; j < block.size(); ++j) {
      old.push_back(s_[block[j]]);
      s_[block[j]] = best[j];
    }
    if (noise(terms.touched) < before * 0.999) return true;
    for (std::size_t j = 0; j < block.size(); ++j) s_[block[j]] = old[j];
    return false;
  }

  std::vector<Work> layers_;
  const FactorLimits& limits_;
  EqualizeSettings settings_;
  Doubles s_;  // by root
  std::vector<std::vector<std::size_t>> blocks_;
  std::vector<std::size_t> slot_;  // root -> place in the block at hand
};

}  // namespace

Result<Doubles> equalize_ranges(const ChannelGraph& channels, const FactorLimits& limits,
                                const EqualizeSettings& settings) {
  std::vector<Work> layers;
  for (const ChannelLayer& layer : channels.layers()) {
    OP_LET(Work work, open_layer(channels, layer, nullptr));
    layers.push_back(std::move(work));
  }
  return Search(std::move(layers), channels.size(), limits, settings).by_ranges();
}

Result<Doubles> equalize_noise(const ChannelGraph& channels, const std::vector<LayerActivity>& activity,
                               const FactorLimits& limits, const EqualizeSettings& settings) {
  std::vector<Work> layers;
  Doubles weight_of(channels.size(), 0);  // h of a class: all layers that read it
  for (std::size_t k = 0; k < channels.layers().size(); ++k) {
    OP_LET(Work work, open_layer(channels, channels.layers()[k], &activity[k]));
    for (std::size_t i = 0; i < work.in.size(); ++i) weight_of[work.in[i]] += work.weight_in[i];
    layers.push_back(std::move(work));
  }
  for (std::size_t k = 0; k < layers.size(); ++k) {
    Work& work = layers[k];
    double total = kTiny;  // of results that nothing here reads, the error counts against all of them together
    for (const double spread : activity[k].out_spread) total += spread;
    for (std::size_t o = 0; o < work.out.size(); ++o)
      work.gain.push_back(work.out[o] == 0 ? 1 / total : weight_of[work.out[o]] * activity[k].out_passing[o]);
  }
  return Search(std::move(layers), channels.size(), limits, settings).by_noise();
}

}  // namespace onnxpress
