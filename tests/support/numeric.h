// Models run by the engine, and how far their results lie apart.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/source.h"
#include "ir/model.h"

namespace onnxpress::testing {

// "float[2,3] w = {...}" with seeded values in [-scale, scale).
std::string float_tensor(std::string_view name, const Dims& dims, unsigned seed, float scale = 1);
// A batch with one seeded float tensor in [-1, 1).
Batch random_batch(std::string_view input, const Dims& dims, unsigned seed);

// The outputs of the model; fails the test on error.
std::vector<Tensor> run_on(const Model& model, const Batch& batch);
// 10 log10 of signal power over error power; +inf when equal. Shapes must agree. The worst output counts.
double sqnr_db(const std::vector<Tensor>& expected, const std::vector<Tensor>& got);

using OpCounts = std::map<std::string, std::size_t>;
OpCounts ops_of(const Model& model);       // as the model spells them, bodies included
OpCounts runtime_ops(const Model& model);  // as the runtime executes them
std::size_t count(const OpCounts& ops, const std::string& op);
std::string text(const OpCounts& ops);  // for INFO

// The nodes with this op, every scope.
std::vector<Node> nodes_of(const Model& model, std::string_view op);

}  // namespace onnxpress::testing
