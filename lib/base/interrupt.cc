#include "base/interrupt.h"

#include <csignal>

namespace onnxpress {
namespace {

volatile std::sig_atomic_t g_signal = 0;

extern "C" void on_signal(int number) { g_signal = number; }

}  // namespace

void install_signal_handlers() {
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
