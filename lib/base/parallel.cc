#include "base/parallel.h"

#include <sched.h>
#include <tbb/parallel_for.h>
#include <tbb/parallel_pipeline.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>

#include "base/interrupt.h"

namespace onnxpress {
namespace {

// Keeps the error with the smallest index. Items before it still run and items after it need not, so the same input
// gives the same message, after the same commits, at any thread count.
class FirstError {
 public:
  bool before(std::size_t index) const { return index_.load(std::memory_order_acquire) <= index; }
  void set(std::size_t index, Error error) {
    const std::lock_guard lock(mutex_);
    if (error_ && index_ <= index) return;
    error_ = std::move(error);
    index_.store(index, std::memory_order_release);
  }
  Status take() {
    if (error_) return std::unexpected(std::move(*error_));
    return {};
  }

 private:
  std::mutex mutex_;
  std::atomic<std::size_t> index_ = std::numeric_limits<std::size_t>::max();
  std::optional<Error> error_;
};

unsigned resolve(unsigned jobs) { return jobs == 0 ? available_cores() : jobs; }

}  // namespace

unsigned available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
}

Status parallel_for(std::size_t n, unsigned jobs, const std::function<Status(std::size_t)>& fn) {
  FirstError error;
  const auto one = [&](std::size_t i) {
    if (error.before(i)) return;
    Status status = check_interrupt();
    if (status) status = fn(i);
    if (!status) error.set(i, std::move(status).error());
  };
  if (resolve(jobs) == 1 || n <= 1) {
    for (std::size_t i = 0; i < n && !error.before(i); ++i) one(i);
  } else {
    tbb::task_arena arena(static_cast<int>(resolve(jobs)));
    arena.execute([&] { tbb::parallel_for(std::size_t{0}, n, one); });
  }
  return error.take();
}

unsigned jobs_within(unsigned jobs, std::uint64_t bytes, std::uint64_t budget) {
  const std::uint64_t fit = budget / std::max<std::uint64_t>(bytes, 1);
  return static_cast<unsigned>(std::clamp<std::uint64_t>(fit, 1, resolve(jobs)));
}

unsigned weight_jobs(unsigned jobs, std::uint64_t bytes, std::uint64_t memory_limit, std::uint64_t unlimited) {
  return jobs_within(jobs, bytes, memory_limit == 0 ? unlimited : memory_limit);
}

std::size_t ordered_slots(unsigned jobs) { return resolve(jobs) == 1 ? 1 : std::size_t{2} * resolve(jobs); }

Status run_ordered(unsigned jobs, const OrderedStages& stages) {
  const std::size_t slots = ordered_slots(jobs);
  FirstError error;
  std::size_t count = 0;
  const auto fetch = [&](std::size_t slot) {
    if (error.before(count)) return false;
    Result<bool> more = check_interrupt().transform([] { return true; });
    if (more) more = stages.fetch(slot);
    if (!more) error.set(count, more.error());
    return more && *more;
  };
  const auto step = [&](const std::function<Status(std::size_t)>& stage, std::size_t index) {
    if (error.before(index)) return;
    if (Status status = stage(index % slots); !status) error.set(index, std::move(status).error());
  };
  if (slots == 1) {
    for (; fetch(0); ++count) {
      step(stages.work, count);
      step(stages.commit, count);
    }
    return error.take();
  }
  // In-order commit frees slots in order, so item i can always use slot i % slots.
  tbb::task_arena arena(static_cast<int>(resolve(jobs)));
  arena.execute([&] {
    tbb::parallel_pipeline(
        slots, tbb::make_filter<void, std::size_t>(tbb::filter_mode::serial_in_order,
                                                   [&](tbb::flow_control& control) -> std::size_t {
                                                     if (!fetch(count % slots)) {
                                                       control.stop();
                                                       return 0;
                                                     }
                                                     return count++;
                                                   }) &
                   tbb::make_filter<std::size_t, std::size_t>(tbb::filter_mode::parallel,
                                                              [&](std::size_t index) {
                                                                step(stages.work, index);
                                                                return index;
                                                              }) &
                   tbb::make_filter<std::size_t, void>(tbb::filter_mode::serial_in_order,
                                                       [&](std::size_t index) { step(stages.commit, index); }));
  });
  return error.take();
}

}  // namespace onnxpress
