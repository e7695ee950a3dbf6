#include "base/interrupt.h"

#include <pthread.h>

#include <csignal>

namespace onnxpress {
namespace {

volatile std::sig_atomic_t g_signal = 0;

pthread_t g_main;

// The system may choose any thread for a signal. A blocking read() waits in the main thread: SIGUSR1 wakes it.
extern "C" void on_signal(int number) {
  g_signal = number;
  if (::pthread_equal(::pthread_self(), g_main) == 0) ::pthread_kill(g_main, SIGUSR1);
}

extern "C" void on_wake(int) {}

}  // namespace

void install_signal_handlers() {
  g_main = ::pthread_self();
  struct sigaction wake = {};
  wake.sa_handler = on_wake;
  ::sigaction(SIGUSR1, &wake, nullptr);
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // a second signal ends the process at once
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

int pending_signal() { return g_signal; }

Status check_interrupt() {
  if (const int number = g_signal; number != 0) return fail(Code::internal, "stopped by signal {}", number);
  return {};
}

}  // namespace onnxpress
