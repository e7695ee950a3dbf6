// Runs the built program and keeps what it said.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace onnxpress::testing {

struct Ended {
  int code = -1;  // exit code; -n when signal n killed it
  std::string out, err;
};

struct RunOptions {
  std::string stdin_path = "/dev/null";
  std::vector<std::string> environment = {};  // added to a minimal one
  // Stdin is a pipe that stays empty; this signal is sent once the program has said something on stderr.
  int interrupt_with = 0;
};

Ended run_onnxpress(const std::vector<std::string>& arguments, const RunOptions& options = {});

std::string read_file(const std::string& path);
void write_file(const std::string& path, std::string_view text);

// y = Relu(Identity(x) W), x [N, 32], W [32, 8].
void write_small_model(const std::string& path);
// Eight samples for it, as .npy.
void write_samples(const std::string& path);

}  // namespace onnxpress::testing
