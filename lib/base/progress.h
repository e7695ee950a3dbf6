// How far a long loop has come: a bar on a terminal, elsewhere a log line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace onnxpress {

enum class ProgressMode { quiet, lines, bar };

// A bar needs a terminal that moves its cursor (`term` is $TERM) and somebody in front of it (`ci` is $CI);
// nothing is shown when messages of level info are not.
ProgressMode progress_mode(bool info, bool terminal, std::string_view term, std::string_view ci);

// Where progress goes and what the time is.
struct ProgressOutput {
  using Clock = std::chrono::steady_clock;
  ProgressMode mode = ProgressMode::quiet;
  std::function<Clock::time_point()> now;
  std::function<void(std::string_view)> line;
  std::function<void(std::string_view)> bar;  // in place of the bar before; "" takes it away

  static ProgressOutput to_stderr();
};

// `total` in items or bytes, 0 when unknown. A bar appears after one second, is redrawn at most ten times a second
// and goes away with the object; lines come at most every ten seconds. Only tick() shows anything: there is no thread.
class Progress {
 public:
  enum class Unit { items, bytes };

  Progress(std::string label, std::uint64_t total, Unit unit = Unit::items,
           ProgressOutput output = ProgressOutput::to_stderr());
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void tick(std::uint64_t count = 1);  // from any thread

 private:
  std::string amount(std::uint64_t count) const;
  std::string line_text() const;
  std::string bar_text() const;

  const std::string label_;
  const std::uint64_t total_;
  const Unit unit_;
  const ProgressOutput output_;
  std::mutex mutex_;
  std::uint64_t done_ = 0;
  bool drawn_ = false;
  ProgressOutput::Clock::time_point next_;  // nothing is shown before it
};

}  // namespace onnxpress
