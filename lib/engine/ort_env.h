// Internal to lib/engine: the process-wide ONNX Runtime environment and its errors as values.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <exception>
#include <utility>

#include "base/result.h"

namespace onnxpress {

// Made on first use; lives until the process ends.
Ort::Env& ort_env();

// The runtime's message on one line.
Error engine_error(const std::exception& exception);

// Runs `body` (which returns a Result or Status); whatever the runtime or protobuf throws becomes an engine error.
template <class Body>
auto guarded(Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc&) {
    return fail(Code::resource, "ONNX Runtime: out of memory");
  } catch (const std::exception& exception) {
    return std::unexpected(engine_error(exception));
  }
}

}  // namespace onnxpress
