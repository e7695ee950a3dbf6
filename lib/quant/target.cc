#include "quant/target.h"

namespace onnxpress {

std::vector<std::pair<std::string, Target>> target_choices() {
  return {{"auto", Target::automatic},      {"ort-x86-vnni", Target::ort_x86_vnni}, {"ort-x86", Target::ort_x86},
          {"ort-arm64", Target::ort_arm64}, {"tensorrt", Target::tensorrt},         {"openvino", Target::openvino},
          {"generic", Target::generic}};
}

Target resolve(Target target) {
  if (target != Target::automatic) return target;
#if defined(__x86_64__)
  const bool vnni = __builtin_cpu_supports("avx512vnni") != 0 || __builtin_cpu_supports("avxvnni") != 0;
  return vnni ? Target::ort_x86_vnni : Target::ort_x86;
#elif defined(__aarch64__)
  return Target::ort_arm64;
#else
  return Target::generic;
#endif
}

std::string target_name(Target target) {
  for (const auto& [name, value] : target_choices())
    if (value == target) return name;
  return "";
}

bool saturates(Target target) { return resolve(target) == Target::ort_x86; }

bool quantizes_results(Target target) {
  const Target resolved = resolve(target);
  return resolved != Target::tensorrt && resolved != Target::openvino;
}

std::vector<std::pair<std::string, ActivationFormat>> activation_choices() {
  return {{"auto", ActivationFormat::automatic},
          {"uint8", ActivationFormat::uint8},
          {"int8", ActivationFormat::int8},
          {"uint8-symmetric", ActivationFormat::uint8_symmetric},
          {"int8-symmetric", ActivationFormat::int8_symmetric},
          {"uint16", ActivationFormat::uint16},
          {"int16", ActivationFormat::int16}};
}

ActivationFormat resolve(ActivationFormat format, Target target) {
  if (format != ActivationFormat::automatic) return format;
  switch (resolve(target)) {
    case Target::tensorrt:
      return ActivationFormat::int8_symmetric;
    case Target::ort_arm64:
      return ActivationFormat::int8;
    default:
      return ActivationFormat::uint8;
  }
}

DType activation_dtype(ActivationFormat format) {
  switch (format) {
    case ActivationFormat::int8:
    case ActivationFormat::int8_symmetric:
      return DType::i8;
    case ActivationFormat::uint16:
      return DType::u16;
    case ActivationFormat::int16:
      return DType::i16;
    default:
      return DType::u8;
  }
}

bool is_symmetric(ActivationFormat format) {
  return format == ActivationFormat::uint8_symmetric || format == ActivationFormat::int8_symmetric;
}

}  // namespace onnxpress
