// Every pass, sorted by name. Declared here, defined by the generated registry.gen.cc that passes/ links.
#pragma once

#include "pass/pass.h"

namespace onnxpress {

Registry all_passes();

}  // namespace onnxpress
