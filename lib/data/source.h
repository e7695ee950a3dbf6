// Samples for calibration and evaluation. Streaming: a file is never wholly in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "num/tensor.h"
#include "num/value_type.h"

namespace onnxpress {

// What one run of the model takes. Usually one sample; as many as the model's fixed batch dimension asks for.
struct Batch {
  std::vector<NamedTensor> inputs;          // one per model input, in the model's type
  std::vector<std::int64_t> labels;         // class index per sample; empty when there are none
  std::vector<NamedTensor> expected = {};   // reference outputs (output_K.pb); usually empty
  std::size_t samples = 1;
};

class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual Result<std::optional<Batch>> next() = 0;  // nullopt at the end
  virtual Status rewind() = 0;
  virtual std::size_t size() const = 0;             // samples that will be delivered
  virtual bool has_labels() const = 0;
  virtual bool synthetic() const { return false; }
  virtual std::string description() const = 0;      // "cifar10_test2k.npz (npz, 2000 samples)"
  virtual std::string formula() const { return ""; }  // the resolved preprocessing, for images
  virtual std::string digest() const = 0;           // XXH3-128 of what is read (file bytes; seed for random)
};

struct DataOptions {
  std::string path;                 // or "random:seed=N"
  std::optional<std::size_t> samples;  // at most this many; random defaults to 32
  std::string labels;               // file of lines "name index", for image folders
  std::string preprocess;           // "resize=224x224,scale=1/127.5,mean=1,std=1,color=RGB,layout=NCHW"
  std::size_t batch = 1;            // for models with a free batch dimension
};

// Detects the format of options.path (.npz, .npy, folder of test_data_set_N, image folder, random:seed=N) and checks
// it against the model's inputs. Errors: io, bad_input (keys that do not match, with "did you mean"), usage.
Result<std::unique_ptr<SampleSource>> open_source(const DataOptions& options, std::span<const ValueInfo> inputs);

}  // namespace onnxpress
