#include "quant/target.h"

namespace onnxpress {

std::vector<std::pair<std::string, Target>> target_choices() {
  return {{"auto", Target::automatic},
          {"ort-x86-vnni", Target::ort_x86_vnni},
          {"ort-x86", Target::ort_x86},
          {"ort-arm64", Target::ort_arm64},
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

}  // namespace onnxpress
