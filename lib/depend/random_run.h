// Running models on invented inputs, and telling two results apart.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "pass/pass.h"

namespace onnxpress {

struct RandomRun {
  std::vector<NamedTensor> inputs;
  std::vector<Tensor> outputs;
};

// Runs `model` on random inputs: floats in [-1, 1), integers 0 and 1. Free dimensions get small sizes, equal ones for
// equal symbols, "a + b" their sum: the first of a few sizes with which the model runs. With `switched`, integers and
// flags that are single numbers get another value: the constant they are compared with, else the other of 0 and 1.
// Errors: unsupported when an input is no tensor of numbers or its rank is not known; else that of the first try.
Result<RandomRun> run_randomly(const Model& model, Runner& runner, std::uint64_t seed, bool switched = false);

// Whether an input is a single integer or flag: the model may do something else with another value.
bool has_switches(const Model& model);

// How far two results are apart: for floats max |a - b| over max |a|, by output, for integers the share that differs;
// the largest over all outputs. Infinity when shapes differ, or when one is finite where the other is not.
double distance(std::span<const Tensor> a, std::span<const Tensor> b);
bool all_finite(std::span<const Tensor> tensors);

}  // namespace onnxpress
