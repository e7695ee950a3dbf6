// Dense linear algebra in float64 over plain spans (LAPACKE and OpenBLAS behind it). Every matrix is row-major and
// contiguous. BLAS runs on the caller's thread only, so results do not depend on the thread count; callers run
// several matrices in parallel. The last bits may differ between CPU families, for which OpenBLAS has other kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace onnxpress {

// c[m, n] = alpha * op(a) * op(b) + beta * c, where op(a) is [m, k] and op(b) is [k, n]: with transpose_a, a is stored
// as [k, m]; with transpose_b, b is stored as [n, k]. With beta = 0 the old content of c is not read.
struct GemmShape {
  std::size_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
};
void gemm(const GemmShape& shape, double alpha, std::span<const double> a, std::span<const double> b, double beta,
          std::span<double> c);

// c[k, n] += a^T b over `rows` rows: a row of a starts every stride_a elements and has k of them, of b stride_b and n.
struct ProductShape {
  std::size_t rows = 0, k = 0, stride_a = 0, n = 0, stride_b = 0;
};
void add_products(const ProductShape& shape, std::span<const double> a, std::span<const double> b,
                  std::span<double> c);
// The same with b = a; only c[i, j] with i <= j is written.
void add_gram(std::size_t rows, std::size_t k, std::size_t stride, std::span<const double> a, std::span<double> c);

// The upper triangle of the symmetric a [n, n] (all of it is read and written) becomes r with a = r^T r; below it stays
// what was there. False when a is not positive definite.
bool cholesky(std::span<double> a, std::size_t n);
// x with r^T r x = b for every row b of `rows` [count, n], in place.
void solve_cholesky(std::span<const double> r, std::size_t n, std::span<double> rows);

// Thin singular value decomposition a = u diag(s) vt of a [rows, cols], with k = min(rows, cols).
struct Svd {
  std::size_t rows = 0, cols = 0;
  std::vector<double> u;  // [rows, k], orthonormal columns; the largest |component| of each (the first one) is positive
  std::vector<double> s;  // [k], descending, not negative
  std::vector<double> vt;  // [k, cols], orthonormal rows
};
// LAPACK's divide and conquer (gesdd), then plain QR iteration (gesvd) when that does not converge.
// Errors: bad_input when an element is NaN or infinite, resource when the matrix is empty, too large or out of memory,
// internal when neither method converges.
Result<Svd> thin_svd(std::span<const double> a, std::size_t rows, std::size_t cols);
// What thin_svd() takes at its peak, in bytes, its result included and its input not.
std::uint64_t thin_svd_bytes(std::size_t rows, std::size_t cols);

// The smallest rank >= 1 whose singular values keep `energy` (0..1) of the sum of their squares.
std::size_t rank_for_energy(std::span<const double> s, double energy);
// The share of the sum of squares that the first `rank` values hold; 1 for a zero matrix.
double energy_of_rank(std::span<const double> s, std::size_t rank);

// The best rank-r approximation (Eckart-Young) as a product: left [rows, r] = U_r sqrt(S), right [r, cols] = sqrt(S)
// V_r^T. Sharing the singular values evenly keeps both factors in range for 16-bit floats and quantization.
struct LowRank {
  std::vector<double> left, right;
};
LowRank low_rank(const Svd& svd, std::size_t rank);

}  // namespace onnxpress
