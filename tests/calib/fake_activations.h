// Hands each tap the same few tensors, whatever the model.
#pragma once

#include <string>
#include <vector>

#include "pass/pass.h"

namespace onnxpress::testing {

class FakeActivations : public Activations {
 public:
  explicit FakeActivations(std::vector<std::vector<float>> samples) : samples_(std::move(samples)) {}
  Status collect(const Model&, std::span<const Tap> taps) override {
    for (const Tap& tap : taps) {
      tapped.push_back(tap.value);
      if (tap.value == "bad") return fail(Code::engine, "bad value");
      for (const auto& values : samples_)
        tap.accumulator->merge(
            tap.accumulator->reduce(Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values).view()));
    }
    return {};
  }
  std::string description() const override { return "fake"; }
  std::vector<std::string> tapped;

 private:
  std::vector<std::vector<float>> samples_;
};

}  // namespace onnxpress::testing
