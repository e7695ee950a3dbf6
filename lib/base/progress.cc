#include "base/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace onnxpress {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstBar = 1s;
constexpr auto kBarEvery = 100ms;
constexpr auto kLineEvery = 10s;
constexpr std::uint64_t kBarCells = 24;

std::string_view env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

ProgressMode progress_mode(bool info, bool terminal, std::string_view term, std::string_view ci) {
  if (!info) return ProgressMode::quiet;
  return terminal && !term.empty() && term != "dumb" && ci != "true" ? ProgressMode::bar : ProgressMode::lines;
}

ProgressOutput ProgressOutput::to_stderr() {
  return {.mode = progress_mode(log::enabled(log::Level::info), log::stderr_is_terminal(), env("TERM"), env("CI")),
          .now = Clock::now,
          .line = [](std::string_view text) { log::write(log::Level::info, text); },
          .bar = log::set_status};
}

Progress::Progress(std::string label, std::uint64_t total, Unit unit, ProgressOutput output)
    : label_(std::move(label)), total_(total), unit_(unit), output_(std::move(output)) {
  if (output_.mode == ProgressMode::quiet) return;
  next_ = output_.now() + (output_.mode == ProgressMode::bar ? kFirstBar : kLineEvery);
}

Progress::~Progress() {
  if (drawn_) output_.bar("");
}

void Progress::tick(std::uint64_t count) {
  if (output_.mode == ProgressMode::quiet) return;
  const std::lock_guard lock(mutex_);
  done_ += count;
  const auto now = output_.now();
  if (now < next_) return;
  if (output_.mode == ProgressMode::lines) {
    next_ = now + kLineEvery;
    output_.line(line_text());
  } else {
    next_ = now + kBarEvery;
    drawn_ = true;
    output_.bar(bar_text());
  }
}

std::string Progress::amount(std::uint64_t count) const {
  return unit_ == Unit::bytes ? human_bytes(count) : fmt::to_string(count);
}

std::string Progress::line_text() const {
  if (total_ == 0) return fmt::format("{}: {}", label_, amount(done_));
  return fmt::format("{}: {}/{} ({}%)", label_, amount(done_), amount(total_), std::min(done_, total_) * 100 / total_);
}

std::string Progress::bar_text() const {
  if (total_ == 0) return line_text();
  const std::uint64_t done = std::min(done_, total_);
  const std::uint64_t cells = done * kBarCells / total_;
  return fmt::format("{} [{:#<{}}{:.<{}}] {:3}% {}/{}", label_, "", cells, "", kBarCells - cells, done * 100 / total_,
                     amount(done_), amount(total_));
}

}  // namespace onnxpress
