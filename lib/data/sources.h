// One function per data format; open_source() in source.h picks among them.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace onnxpress {

using SourceResult = Result<std::unique_ptr<SampleSource>>;

// .npz: one key per input, the leading axis counts samples, the key `labels` holds class indices (unless an input has
// that name). A sample has the input's rank, or one less when its batch axis is left out; such samples are stacked:
// as many as the model's fixed batch dimension says (a remainder is dropped), else options.batch.
SourceResult open_npz_source(const DataOptions& options, std::span<const ValueInfo> inputs);
// .npy: the same with one array, for models with one input; no labels.
SourceResult open_npy_source(const DataOptions& options, std::span<const ValueInfo> inputs);

// A test_data_set_N folder of the ONNX backend tests, or a folder of them, by N. input_K.pb belongs to the input its
// TensorProto names, else to the K-th; output_K.pb become Batch::expected, by K, under the name the file gives ("" when
// it gives none). One folder is one sample of one run.
SourceResult open_pb_source(const DataOptions& options, std::span<const ValueInfo> inputs);
bool is_pb_folder(const std::filesystem::path& folder);

// A folder of JPEG, PNG or WebP files, or one level of sub-folders of them, by path. options.labels gives each
// sub-folder's class index. With options.samples fewer than there are, every n-th is taken, so that all classes stay
// in. Other files are left aside.
SourceResult open_image_source(const DataOptions& options, std::span<const ValueInfo> inputs);

// "random:seed=N", and for inputs that need it a shape, values or both: "random:seed=1,input=1x512,sr=:16000,ids=:0..49"
// (floats from the low up to the high end, whole numbers both ends included). Counter-based: a value depends on seed, input name, sample and position only. Else floats are uniform in
// [-1, 1) before rounding to the input's type; integers and booleans are 0 or 1, the only indices and masks that are
// safe in any model; free dimensions become 1. One sample is one run.
SourceResult open_random_source(const DataOptions& options, std::span<const ValueInfo> inputs);

// XXH3-128 over the bytes of the files one after the other, read in pieces. Error io.
Result<std::string> digest_of_files(std::span<const std::filesystem::path> paths);

// min(options.samples, available). Error bad_input when that is none.
Result<std::size_t> wanted_samples(const DataOptions& options, std::size_t available, const std::string& name);
// "512 samples", "100 of 512 samples".
std::string samples_text(std::size_t delivered, std::size_t available);

}  // namespace onnxpress
