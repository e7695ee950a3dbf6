// What every use of OpenBLAS starts with; for the files of lib/num that include its headers.
#pragma once

#include <cblas.h>

namespace onnxpress {

// OpenBLAS would start threads of its own, whose number changes how sums are split.
inline void use_one_blas_thread() {
  static const bool once = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace onnxpress
