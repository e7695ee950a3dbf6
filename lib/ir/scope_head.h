// Initializers and nodes at the head of a scope, named after one weight: what computes a weight that is stored in
// another form.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/rewriter.h"

namespace onnxpress {

class ScopeHead {
 public:
  ScopeHead(Rewriter& rewriter, std::string_view base) : rewriter_(rewriter), base_(base) {}

  // The initializer "<base><suffix>", or that with a number when the name is taken.
  std::string constant(const char* suffix, Tensor value);
  std::string dims(const char* suffix, const Dims& values);  // int64
  // A node of one output, "" for a fresh name; it stands behind those that were added before.
  std::string node(const char* op, std::vector<std::string> inputs, std::string output = {},
                   std::vector<std::pair<std::string, AttributeValue>> attributes = {});

  std::uint64_t file_bytes() const { return file_bytes_; }  // of all that was added

 private:
  Rewriter& rewriter_;
  std::string base_;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace onnxpress
