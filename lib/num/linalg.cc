#include "num/linalg.h"

#include <lapacke.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "num/blas.h"

namespace onnxpress {
namespace {

// LAPACK's workspace for k = min(rows, cols) has about 4 k^2 elements, counted in 32-bit integers.
constexpr std::size_t kMaxSide = 20000;
constexpr std::size_t kMaxElements = std::numeric_limits<std::int32_t>::max();

// The sum of squares of s[from..], smallest first so that a long tail of small values is not lost.
double tail_energy(std::span<const double> s, std::size_t from) {
  return std::accumulate(s.rbegin(), s.rend() - static_cast<std::ptrdiff_t>(from), 0.0,
                         [](double sum, double value) { return sum + value * value; });
}

void fix_signs(Svd& svd) {
  const std::size_t k = svd.s.size();
  std::vector<std::size_t> largest(k, 0);
  for (std::size_t i = 1; i < svd.rows; ++i)
    for (std::size_t j = 0; j < k; ++j)
      if (std::abs(svd.u[i * k + j]) > std::abs(svd.u[largest[j] * k + j])) largest[j] = i;
  for (std::size_t j = 0; j < k; ++j) {
    if (!(svd.u[largest[j] * k + j] < 0)) continue;
    for (std::size_t i = 0; i < svd.rows; ++i) svd.u[i * k + j] = -svd.u[i * k + j];
    for (std::size_t i = 0; i < svd.cols; ++i) svd.vt[j * svd.cols + i] = -svd.vt[j * svd.cols + i];
  }
}

}  // namespace

void gemm(const GemmShape& shape, double alpha, std::span<const double> a, std::span<const double> b, double beta,
          std::span<double> c) {
  const auto [m, n, k, transpose_a, transpose_b] = shape;
  assert(a.size() == m * k && b.size() == k * n && c.size() == m * n);
  assert(std::max({m, n, k}) <= kMaxElements);
  if (c.empty()) return;
  use_one_blas_thread();
  const auto stride = [](std::size_t columns) { return static_cast<int>(std::max<std::size_t>(columns, 1)); };
  cblas_dgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), alpha, a.data(),
              stride(transpose_a ? m : k), b.data(), stride(transpose_b ? k : n), beta, c.data(), stride(n));
}

void add_products(const ProductShape& shape, std::span<const double> a, std::span<const double> b,
                  std::span<double> c) {
  const auto [rows, k, stride_a, n, stride_b] = shape;
  assert(c.size() == k * n && k <= stride_a && n <= stride_b);
  if (rows == 0 || c.empty()) return;
  assert(a.size() >= (rows - 1) * stride_a + k && b.size() >= (rows - 1) * stride_b + n);
  assert(std::max({rows, stride_a, stride_b}) <= kMaxElements);
  use_one_blas_thread();
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(k), static_cast<int>(n), static_cast<int>(rows),
              1, a.data(), static_cast<int>(stride_a), b.data(), static_cast<int>(stride_b), 1, c.data(),
              static_cast<int>(n));
}

void add_gram(std::size_t rows, std::size_t k, std::size_t stride, std::span<const double> a, std::span<double> c) {
  assert(c.size() == k * k && k <= stride);
  if (rows == 0 || k == 0) return;
  assert(a.size() >= (rows - 1) * stride + k && std::max(rows, stride) <= kMaxElements);
  use_one_blas_thread();
  cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, static_cast<int>(k), static_cast<int>(rows), 1, a.data(),
              static_cast<int>(stride), 1, c.data(), static_cast<int>(k));
}

// The upper triangle of a row-major matrix is the lower one in LAPACK's column order.
bool cholesky(std::span<double> a, std::size_t n) {
  assert(a.size() == n * n && n <= kMaxElements);
  if (n == 0) return true;
  use_one_blas_thread();
  const auto size = static_cast<lapack_int>(n);
  const lapack_int info = LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', size, a.data(), size);
  assert(info >= 0);
  return info == 0;
}

void solve_cholesky(std::span<const double> r, std::size_t n, std::span<double> rows) {
  assert(r.size() == n * n && n > 0 && rows.size() % n == 0);
  use_one_blas_thread();
  const auto size = static_cast<lapack_int>(n);
  const lapack_int info = LAPACKE_dpotrs(LAPACK_COL_MAJOR, 'L', size, static_cast<lapack_int>(rows.size() / n),
                                         r.data(), size, rows.data(), size);
  assert(info == 0);
}

Result<Svd> thin_svd(std::span<const double> a, std::size_t rows, std::size_t cols) {
  assert(a.size() == rows * cols);
  const std::size_t k = std::min(rows, cols);
  if (k == 0) return fail(Code::resource, "an empty matrix has no singular values");
  if (k > kMaxSide || a.size() > kMaxElements) return fail(Code::resource, "{}x{} is too large for an SVD", rows, cols);
  if (!std::ranges::all_of(a, [](double value) { return std::isfinite(value); }))
    return fail(Code::bad_input, "it has NaN or infinite values");
  use_one_blas_thread();

  // A row-major matrix is its transpose in LAPACK's column order, and a^T = vt^T diag(s) u^T: asking for the SVD of
  // the transpose gives vt and u in row-major order without a single copy.
  Svd svd{rows, cols, std::vector<double>(rows * k), std::vector<double>(k), std::vector<double>(k * cols)};
  const auto m = static_cast<lapack_int>(cols), n = static_cast<lapack_int>(rows), mn = static_cast<lapack_int>(k);
  std::vector<double> work(a.begin(), a.end());
  lapack_int info =
      LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', m, n, work.data(), m, svd.s.data(), svd.vt.data(), m, svd.u.data(), mn);
  if (info > 0) {
    work.assign(a.begin(), a.end());
    std::vector<double> superdiagonal(k);
    info = LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'S', 'S', m, n, work.data(), m, svd.s.data(), svd.vt.data(), m,
                          svd.u.data(), mn, superdiagonal.data());
  }
  if (info == LAPACK_WORK_MEMORY_ERROR) return fail(Code::resource, "no memory for the SVD of {}x{}", rows, cols);
  if (info > 0) return fail(Code::internal, "the SVD of {}x{} does not converge", rows, cols);
  assert(info == 0);
  fix_signs(svd);
  return svd;
}

std::uint64_t thin_svd_bytes(std::size_t rows, std::size_t cols) {
  const std::uint64_t k = std::min(rows, cols);
  return sizeof(double) * (std::uint64_t{rows} * cols + k * (rows + cols) + 4 * k * k);
}

std::size_t rank_for_energy(std::span<const double> s, double energy) {
  const double allowed = (1 - energy) * tail_energy(s, 0);
  std::size_t rank = s.size();
  double dropped = 0;
  while (rank > 1) {
    dropped += s[rank - 1] * s[rank - 1];
    if (dropped > allowed) break;
    --rank;
  }
  return rank;
}

double energy_of_rank(std::span<const double> s, std::size_t rank) {
  const double total = tail_energy(s, 0);
  return total == 0 ? 1 : 1 - tail_energy(s, std::min(rank, s.size())) / total;
}

LowRank low_rank(const Svd& svd, std::size_t rank) {
  const std::size_t k = svd.s.size();
  assert(rank <= k);
  LowRank out{std::vector<double>(svd.rows * rank), std::vector<double>(rank * svd.cols)};
  for (std::size_t j = 0; j < rank; ++j) {
    const double root = std::sqrt(svd.s[j]);
    for (std::size_t i = 0; i < svd.rows; ++i) out.left[i * rank + j] = svd.u[i * k + j] * root;
    for (std::size_t i = 0; i < svd.cols; ++i) out.right[j * svd.cols + i] = svd.vt[j * svd.cols + i] * root;
  }
  return out;
}

}  // namespace onnxpress
