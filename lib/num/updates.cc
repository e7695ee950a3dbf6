#include "num/updates.h"

#include <cassert>

#include "num/blas.h"

namespace onnxpress {

void add_scaled(double alpha, std::span<const double> x, std::span<double> y) {
  assert(x.size() == y.size());
  use_one_blas_thread();
  cblas_daxpy(static_cast<blasint>(x.size()), alpha, x.data(), 1, y.data(), 1);
}

void add_square(double alpha, std::span<const double> x, std::span<double> a, std::size_t stride) {
  use_one_blas_thread();
  cblas_dsyr(CblasRowMajor, CblasUpper, static_cast<blasint>(x.size()), alpha, x.data(), 1, a.data(),
             static_cast<blasint>(stride));
}

}  // namespace onnxpress
