// Threads (oneTBB behind it). Results never depend on the number of threads: work is split by index, and
// whatever must be in order is committed in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/result.h"

namespace onnxpress {

// Cores this process may use (its CPU affinity), at least 1.
unsigned available_cores();

// fn(i) for i in [0, n), on up to `jobs` threads (0 = available_cores). The first error by index wins.
Status parallel_for(std::size_t n, unsigned jobs, const std::function<Status(std::size_t)>& fn);

// Runs fetch() serially in order until it yields false, work() in parallel, commit() serially in the same order,
// with at most 2 x jobs items between fetch and commit: memory stays flat whatever the count.
struct OrderedStages {
  std::function<Result<bool>(std::size_t slot)> fetch;   // false = no more items; slot is free to fill
  std::function<Status(std::size_t slot)> work;
  std::function<Status(std::size_t slot)> commit;
};
Status run_ordered(unsigned jobs, const OrderedStages& stages);
std::size_t ordered_slots(unsigned jobs);  // how many slots run_ordered uses

// How many of `jobs` (0 = available_cores) can run at once when each takes `bytes` and all `budget` bytes; at least 1.
unsigned jobs_within(unsigned jobs, std::uint64_t bytes, std::uint64_t budget);

// The same for weights in work: without a memory limit (0) they may take `unlimited` bytes.
inline constexpr std::uint64_t kWeightsInFlight = std::uint64_t{512} << 20;
unsigned weight_jobs(unsigned jobs, std::uint64_t bytes, std::uint64_t memory_limit,
                     std::uint64_t unlimited = kWeightsInFlight);

// The execute and commit steps of a weight pass (design: plan, execute, commit): execute(i) makes item i in
// parallel, commit(i, item) takes them in order. Progress is shown under `label`.
template <class T>
Status execute_and_commit(std::size_t n, unsigned jobs, const std::function<Result<T>(std::size_t)>& execute,
                          const std::function<Status(std::size_t, T)>& commit, std::string_view label = "weights") {
  struct Slot {
    std::size_t index = 0;
    std::optional<T> item;
  };
  std::vector<Slot> slots(ordered_slots(jobs));
  std::size_t next = 0;
  Progress progress(std::string(label), n);
  return run_ordered(jobs, {.fetch =
                                [&](std::size_t slot) -> Result<bool> {
                                  if (next == n) return false;
                                  slots[slot] = {next++, std::nullopt};
                                  return true;
                                },
                            .work =
                                [&](std::size_t slot) -> Status {
                                  OP_LET(slots[slot].item, execute(slots[slot].index));
                                  return {};
                                },
                            .commit =
                                [&](std::size_t slot) -> Status {
                                  T item = std::move(*slots[slot].item);
                                  slots[slot].item.reset();
                                  progress.tick();
                                  return commit(slots[slot].index, std::move(item));
                                }});
}

}  // namespace onnxpress
