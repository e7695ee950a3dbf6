#include "base/progress.h"

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"

namespace onnxpress {
namespace {

using namespace std::chrono_literals;

// A clock that stands still until told, and everything that was shown.
struct Screen {
  ProgressOutput::Clock::time_point now{};
  std::vector<std::string> lines, bars;

  ProgressOutput output(ProgressMode mode) {
    return {.mode = mode,
            .now = [this] { return now; },
            .line = [this](std::string_view text) { lines.emplace_back(text); },
            .bar = [this](std::string_view text) { bars.emplace_back(text); }};
  }
};

using Texts = std::vector<std::string>;

TEST_CASE("a bar needs a terminal, somebody who looks and level info") {
  CHECK(progress_mode(true, true, "xterm-256color", "") == ProgressMode::bar);
  CHECK(progress_mode(true, true, "xterm", "false") == ProgressMode::bar);
  CHECK(progress_mode(true, false, "xterm", "") == ProgressMode::lines);
  CHECK(progress_mode(true, true, "dumb", "") == ProgressMode::lines);
  CHECK(progress_mode(true, true, "", "") == ProgressMode::lines);
  CHECK(progress_mode(true, true, "xterm", "true") == ProgressMode::lines);
  CHECK(progress_mode(false, true, "xterm", "") == ProgressMode::quiet);
  CHECK(progress_mode(false, false, "", "") == ProgressMode::quiet);
}

TEST_CASE("without a terminal there is a line at most every ten seconds") {
  Screen screen;
  {
    Progress progress("calibration", 200, Progress::Unit::items, screen.output(ProgressMode::lines));
    for (int second = 1; second <= 25; ++second) {
      screen.now += 1s;
      progress.tick(8);
    }
    screen.now += 9999ms - 5s;
    progress.tick(0);
  }
  CHECK(screen.lines == Texts{"calibration: 80/200 (40%)", "calibration: 160/200 (80%)"});
  CHECK(screen.bars.empty());
}

TEST_CASE("a terminal shows a bar after one second, at most ten times a second, and none at the end") {
  Screen screen;
  {
    Progress progress("weights", 48, Progress::Unit::items, screen.output(ProgressMode::bar));
    screen.now += 999ms;
    progress.tick(11);
    CHECK(screen.bars.empty());
    screen.now += 1ms;
    progress.tick();
    screen.now += 99ms;
    progress.tick();
    CHECK(screen.bars.size() == 1);
    screen.now += 1ms;
    progress.tick(35);
  }
  CHECK(screen.bars ==
        Texts{"weights [######..................]  25% 12/48", "weights [########################] 100% 48/48", ""});
  CHECK(screen.lines.empty());
}

TEST_CASE("what ends within a second leaves no trace") {
  for (const ProgressMode mode : {ProgressMode::bar, ProgressMode::lines}) {
    Screen screen;
    {
      Progress progress("weights", 3, Progress::Unit::items, screen.output(mode));
      screen.now += 900ms;
      progress.tick(3);
    }
    CHECK(screen.lines.empty());
    CHECK(screen.bars.empty());
  }
}

TEST_CASE("quiet shows nothing however long it takes") {
  Screen screen;
  {
    Progress progress("weights", 3, Progress::Unit::items, screen.output(ProgressMode::quiet));
    screen.now += 1h;
    progress.tick();
  }
  CHECK(screen.lines.empty());
  CHECK(screen.bars.empty());
}

TEST_CASE("the bar goes away on an error path too") {
  Screen screen;
  const auto work = [&]() -> Status {
    Progress progress("saving", 2, Progress::Unit::items, screen.output(ProgressMode::bar));
    screen.now += 2s;
    progress.tick();
    return fail(Code::io, "disk full");
  };
  REQUIRE_FALSE(work());
  REQUIRE(screen.bars.size() == 2);
  CHECK(screen.bars[1].empty());
}

TEST_CASE("bytes are shown in units, an unknown total as a count, too much as all") {
  Screen screen;
  Progress bytes("saving", 2'000'000'000, Progress::Unit::bytes, screen.output(ProgressMode::lines));
  Progress open("samples", 0, Progress::Unit::items, screen.output(ProgressMode::lines));
  Progress open_bar("samples", 0, Progress::Unit::items, screen.output(ProgressMode::bar));
  Progress over("samples", 10, Progress::Unit::items, screen.output(ProgressMode::lines));
  Progress over_bar("samples", 10, Progress::Unit::items, screen.output(ProgressMode::bar));
  screen.now += 10s;
  bytes.tick(500'000'000);
  open.tick(7);
  open_bar.tick(7);
  over.tick(12);
  over_bar.tick(12);
  CHECK(screen.lines == Texts{"saving: 500.0 MB/2.00 GB (25%)", "samples: 7", "samples: 12/10 (100%)"});
  CHECK(screen.bars == Texts{"samples: 7", "samples [########################] 100% 12/10"});
}

TEST_CASE("ticks from many threads are all counted") {
  Screen screen;
  Progress progress("weights", 4000, Progress::Unit::items, screen.output(ProgressMode::lines));
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 999; ++i) progress.tick();
      });
  }
  screen.now += 10s;
  progress.tick(4);
  CHECK(screen.lines == Texts{"weights: 4000/4000 (100%)"});
}

}  // namespace
}  // namespace onnxpress
