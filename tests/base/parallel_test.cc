#include "base/parallel.h"

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <numeric>
#include <thread>

namespace onnxpress {
namespace {

// Makes later items finish before earlier ones, so that an order bug shows.
void stagger(std::size_t i) { std::this_thread::sleep_for(std::chrono::microseconds(i % 7 == 0 ? 500 : 5)); }

TEST_CASE("parallel_for runs every index once") {
  const unsigned jobs = GENERATE(0U, 1U, 2U, 8U);
  std::vector<std::atomic<int>> seen(1000);
  REQUIRE(parallel_for(seen.size(), jobs, [&](std::size_t i) -> Status {
    ++seen[i];
    return {};
  }));
  for (const auto& count : seen) REQUIRE(count == 1);
  REQUIRE(parallel_for(0, jobs, [](std::size_t) -> Status { return fail(Code::internal, "not to be called"); }));
}

TEST_CASE("parallel_for returns the error with the smallest index") {
  const unsigned jobs = GENERATE(1U, 2U, 8U);
  for (int round = 0; round < 20; ++round) {
    const Status status = parallel_for(200, jobs, [](std::size_t i) -> Status {
      if (i % 50 == 17) {
        stagger(i == 17 ? 0 : 1);  // the first error comes late
        return fail(Code::io, "item {}", i);
      }
      return {};
    });
    REQUIRE_FALSE(status);
    REQUIRE(status.error().what == "item 17");
  }
}

TEST_CASE("run_ordered commits in order, whatever the number of threads") {
  const unsigned jobs = GENERATE(1U, 2U, 8U);
  const std::size_t n = 300;
  std::vector<std::size_t> slots(ordered_slots(jobs)), order;
  std::size_t next = 0, in_flight = 0, most = 0;
  std::mutex mutex;
  const Status status = run_ordered(jobs, {.fetch = [&](std::size_t slot) -> Result<bool> {
                                             if (next == n) return false;
                                             slots.at(slot) = next++;
                                             const std::lock_guard lock(mutex);
                                             most = std::max(most, ++in_flight);
                                             return true;
                                           },
                                           .work = [&](std::size_t slot) -> Status {
                                             stagger(slots[slot]);
                                             slots[slot] *= 3;
                                             return {};
                                           },
                                           .commit = [&](std::size_t slot) -> Status {
                                             order.push_back(slots[slot]);
                                             const std::lock_guard lock(mutex);
                                             --in_flight;
                                             return {};
                                           }});
  REQUIRE(status);
  REQUIRE(order.size() == n);
  for (std::size_t i = 0; i < n; ++i) REQUIRE(order[i] == 3 * i);
  CHECK(most <= ordered_slots(jobs));
}

// What was committed, and the error, when stage `where` fails at item 20 and work fails at item 23 too.
std::pair<std::size_t, std::string> commits_until(unsigned jobs, int where) {
  std::vector<std::size_t> slots(ordered_slots(jobs));
  std::size_t next = 0, committed = 0;
  const auto bad = [&](int stage, std::size_t i) { return (stage == where && i == 20) || (stage == 1 && i == 23); };
  const Status status = run_ordered(jobs, {.fetch = [&](std::size_t slot) -> Result<bool> {
                                             if (bad(0, next)) return fail(Code::io, "fetch {}", next);
                                             slots[slot] = next++;
                                             return next <= 100;
                                           },
                                           .work = [&](std::size_t slot) -> Status {
                                             stagger(slots[slot] == 20 ? 0 : 1);
                                             if (bad(1, slots[slot])) return fail(Code::io, "work {}", slots[slot]);
                                             return {};
                                           },
                                           .commit = [&](std::size_t slot) -> Status {
                                             if (bad(2, slots[slot])) return fail(Code::io, "commit {}", slots[slot]);
                                             ++committed;
                                             return {};
                                           }});
  REQUIRE_FALSE(status);
  return {committed, status.error().what};
}

TEST_CASE("run_ordered stops at the first failing item, with everything before it committed") {
  const unsigned jobs = GENERATE(1U, 2U, 8U);
  for (int round = 0; round < 10; ++round) {
    REQUIRE(commits_until(jobs, 0) == std::pair<std::size_t, std::string>(20, "fetch 20"));
    REQUIRE(commits_until(jobs, 1) == std::pair<std::size_t, std::string>(20, "work 20"));
    REQUIRE(commits_until(jobs, 2) == std::pair<std::size_t, std::string>(20, "commit 20"));
  }
}

TEST_CASE("execute_and_commit hands every item over once, in order") {
  const unsigned jobs = GENERATE(1U, 2U, 8U);
  std::string text;
  REQUIRE(execute_and_commit<std::unique_ptr<int>>(
      26, jobs,
      [](std::size_t i) -> Result<std::unique_ptr<int>> {
        stagger(i);
        return std::make_unique<int>(static_cast<int>(i));
      },
      [&](std::size_t i, std::unique_ptr<int> item) -> Status {
        REQUIRE(*item == static_cast<int>(i));
        text += static_cast<char>('a' + *item);
        return {};
      }));
  CHECK(text == "abcdefghijklmnopqrstuvwxyz");
}

TEST_CASE("there is always a core") { CHECK(available_cores() >= 1); }

TEST_CASE("jobs_within fits the budget and never stops") {
  CHECK(jobs_within(8, 100, 1000) == 8);
  CHECK(jobs_within(8, 300, 1000) == 3);
  CHECK(jobs_within(8, 2000, 1000) == 1);
  CHECK(jobs_within(8, 0, 1000) == 8);
  CHECK(jobs_within(0, 1, 1 << 20) == available_cores());
}

}  // namespace
}  // namespace onnxpress
