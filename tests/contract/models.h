// The models every pass is tried on: what real files contain and what passes like to forget.
#pragma once

#include <string>
#include <vector>

#include "ir/model.h"

namespace onnxpress::testing {

struct TestModel {
  std::string name;
  Model model;
  // Text that must be in the serialized result of every pass: unknown ops, functions, documentation, metadata, unknown
  // protobuf fields, sparse initializers.
  std::vector<std::string> markers = {};
  std::string data = "random:seed=1";  // for passes that need samples
  bool in_reference = false;           // ref_eval.h knows all of its operators
  bool trained = false;                // of testdata/: the others are tiny
};

// `folder` takes the file with external data; it must live as long as the models.
std::vector<TestModel> contract_models(const std::string& folder);

}  // namespace onnxpress::testing
