// Updates of float64 vectors and triangles in place (BLAS behind them, on the caller's thread).
#pragma once

#include <cstddef>
#include <span>

namespace onnxpress {

// y += alpha * x, of equal length.
void add_scaled(double alpha, std::span<const double> x, std::span<double> y);

// a[i, j] += alpha * x_i * x_j for i <= j; a row of a starts every `stride` elements.
void add_square(double alpha, std::span<const double> x, std::span<double> a, std::size_t stride);

}  // namespace onnxpress
