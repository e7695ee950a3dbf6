// A test model made ready for comparison: what it says about itself, and what it computes.
#pragma once

#include <string>
#include <vector>

#include "contract/models.h"
#include "data/source.h"
#include "pass/pipeline.h"

namespace onnxpress::testing {

struct Subject {
  TestModel test;
  std::string bytes;              // serialized
  bool valid = false;             // passes the ONNX checker
  bool runs = false;              // opens in ONNX Runtime
  std::vector<ValueInfo> inputs;  // that a run wants
  std::vector<std::vector<NamedTensor>> feeds = {};  // two runs
  std::vector<std::vector<Tensor>> outputs = {};     // what ONNX Runtime gives for them
};

Subject prepare(TestModel test);
std::vector<Subject> prepare_all(const std::string& folder);

struct Attempt {
  Model model;
  Status status;
  bool changed = false;
  std::string bytes;  // serialized; empty when it failed
  Journal journal;
};

// Runs the pipeline on a copy of the subject, or on `from`, with samples and an engine at hand.
Attempt attempt(const Subject& subject, const Pipeline& pipeline, unsigned jobs, const Model* from = nullptr);

// Checks that inputs and outputs kept their names, order and types. Up to IR version 3 every initializer has to be
// listed among the inputs; those come and go with their initializers.
void check_interface(const Model& before, const Model& after);

// Checks that every output of `model` equals the subject's: integers exactly, floats within 1e-4 of the larger of 1 and
// the value (1e-2 for 16-bit floats).
void require_same_outputs(const Subject& subject, const Model& model);
// The same for two lists of tensors; "" or what differs.
std::string difference(const std::vector<Tensor>& expected, const std::vector<Tensor>& actual);

}  // namespace onnxpress::testing
