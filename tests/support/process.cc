#include "support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <fstream>
#include <sstream>

#include "base/text.h"
#include "io/save.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

void redirect(const std::string& path, int flags, int target) {
  const int fd = ::open(path.c_str(), flags, 0600);
  if (fd < 0 || ::dup2(fd, target) < 0) ::_exit(126);
}

bool has_content(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

}  // namespace

Ended run_onnxpress(const std::vector<std::string>& arguments, const RunOptions& options) {
  const TempDir dir;
  std::vector<std::string> command = {ONNXPRESS_BINARY_DIR "/onnxpress"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = {"PATH=/usr/bin:/bin", "TERM=dumb", "LANG=C.UTF-8"};
  environment.insert(environment.end(), options.environment.begin(), options.environment.end());
  const std::vector<char*> argv = pointers(command), envp = pointers(environment);
  const std::string out = dir.path("out"), err = dir.path("err");
  std::array<int, 2> pipe_ends = {-1, -1};
  if (options.interrupt_with != 0) REQUIRE(::pipe2(pipe_ends.data(), O_CLOEXEC) == 0);

  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (options.interrupt_with != 0) {
      ::dup2(pipe_ends[0], STDIN_FILENO);
    } else {
      redirect(options.stdin_path, O_RDONLY, STDIN_FILENO);
    }
    redirect(out, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
    redirect(err, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  int status = 0;
  if (options.interrupt_with != 0) {
    while (!has_content(err) && ::waitpid(child, &status, WNOHANG) == 0) ::usleep(1000);
    ::usleep(50'000);
    ::kill(child, options.interrupt_with);
    for (int tries = 0; tries < 1000 && ::kill(child, 0) == 0; ++tries) {
      siginfo_t info = {};
      if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child)
        break;
      ::usleep(10'000);
    }
    ::kill(child, SIGKILL);  // one that did not stop by itself must not hang the tests
  }
  REQUIRE(::waitpid(child, &status, 0) == child);
  for (const int fd : pipe_ends)
    if (fd >= 0) ::close(fd);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), read_file(out), read_file(err)};
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  INFO(path);
  REQUIRE(file);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

void write_small_model(const std::string& path) {
  std::vector<std::string> values;
  for (const float value : random_floats(32UL * 8, 7)) values.push_back(fmt::format("{:f}", value));
  const Model model = parse(HEAD "g (float[N, 32] x) => (float[N, 8] y) <float[32, 8] w = {" + join(values, ", ") +
                            "}> { a = Identity(x) b = MatMul(a, w) y = Relu(b) }");
  REQUIRE(save_model(model, path));
}

void write_samples(const std::string& path) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 32), }";
  header.append(117 - header.size(), ' ');
  const std::vector<float> values = random_floats(8UL * 32, 3);
  const std::string_view payload(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  write_file(path, std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" + std::string(payload));
}

}  // namespace onnxpress::testing
