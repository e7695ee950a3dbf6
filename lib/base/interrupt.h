// SIGINT, SIGTERM and SIGHUP set a flag; long loops stop at the next item, temporaries are removed, exit is 128+n.
#pragma once

#include "base/result.h"

namespace onnxpress {

void install_signal_handlers();
int pending_signal();      // 0 when none
Status check_interrupt();  // an error once a signal has come

}  // namespace onnxpress
