// Ranges in the JSON forms of onnxruntime.quantization.
#pragma once

#include <string>
#include <string_view>

#include "calib/ranges.h"

namespace onnxpress {

// Read by content, all values of the main graph:
//   overrides    {"x": [{"scale": 0.1, "zero_point": 3, "quant_type": "QUInt8"}]}, the dictionary TensorQuantOverrides;
//                "rmin" and "rmax" too, alone or with "symmetric". Entries with an "axis" (weights) and entries
//                without numbers are left out. Numbers may be text, as TensorQuantOverridesHelper.pprint_str writes.
//   calibration  {"CLS": "TensorsData", "data": {"x": {"lowest": …, "highest": …}}}, calibration.json of
//                write_calibration_table(); also without the outer level, and {"x": [min, max]} of older releases.
// `name` is for messages. Error bad_input.
Result<RangeTable> parse_ort_ranges(std::string_view text, const std::string& name);

enum class OrtForm { overrides, calibration };
// Overrides carry the scale and zero point of choose_affine(). "quant_type" is left out for uint8, the default: the
// runtime's command-line tool takes numbers only.
std::string ort_ranges_text(const RangeTable& ranges, OrtForm form, DType dtype, bool symmetric);

}  // namespace onnxpress
