// What a grid of codes costs the values of a density.
#pragma once

#include <cmath>

#include "calib/density.h"
#include "num/quantize.h"

namespace onnxpress {

// Both costs stop early, at a value of at least `limit`, when clipping alone costs that much.

// Sum of squared errors of clip and round, x -> (round(x / scale) + zero_point) clipped to the codes and back.
double squared_error(const Density& density, AffineParams params, CodeRange codes, double limit = HUGE_VAL);

// Kullback-Leibler divergence from the distribution of the values to that of the codes, in nats. Each code stands for
// its values spread evenly over the bins they were seen in; values beyond the outermost code are counted into it on the
// side of the values but not of the codes, so that clipping costs. Infinite when the outermost code has no values of
// its own. (Migacz, "8-bit Inference with TensorRT", GTC 2017, whose 2048 bins over the absolute value become the bins
// of the histogram here, either sign, with zeros exact.)
double divergence(const Density& density, AffineParams params, CodeRange codes, double limit = HUGE_VAL);

}  // namespace onnxpress
