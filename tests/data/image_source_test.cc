#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "base/hash.h"
#include "files.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

namespace fs = std::filesystem;

const std::string kImages = ONNXPRESS_SOURCE_DIR "/testdata/images/";
const std::vector<ValueInfo> kPlanes = {input("x", DType::f32, {-1, 3, 4, 4})};

// cat/{a.png,b.JPG}, dog/c.webp and a labels file.
struct Folder {
  TempDir dir;
  std::string root = dir.path("photos");
  DataOptions options;
  Folder() {
    fs::create_directories(root + "/cat");
    fs::create_directories(root + "/big dog");
    fs::copy(kImages + "gray.png", root + "/cat/a.png");
    fs::copy(kImages + "rgb_420.jpg", root + "/cat/b.JPG");
    fs::copy(kImages + "lossless.webp", root + "/big dog/c.webp");
    write_file(root + "/cat/notes.txt", "not an image");
    options.path = root;
    labels("cat 281\n\nbig dog 7\r\n");
  }
  void labels(const std::string& text) {
    options.labels = dir.path("labels.txt");
    write_file(options.labels, text);
  }
};

}  // namespace

TEST_CASE("image source: sorted by path, classes from sub-folders, formula and digest") {
  Folder folder;
  folder.options.preprocess = "scale=1/255";
  auto source = require_source(folder.options, kPlanes);
  CHECK(source->size() == 3);
  CHECK(source->has_labels());
  CHECK(source->description() == "photos (images, 3 samples)");
  CHECK(source->formula() == "RGB, resize 4x4 (bicubic), value = (pixel * 1/255 - 0) / 1, NCHW");
  Hasher hasher;
  for (const char* name : {"/big dog/c.webp", "/cat/a.png", "/cat/b.JPG"}) hasher.add(read_file(folder.root + name));
  CHECK(source->digest() == hasher.hex());
  for (int round = 0; round < 2; ++round) {
    const auto batches = read_all(*source);
    REQUIRE(batches.size() == 3);
    CHECK(batches[0].labels == std::vector<std::int64_t>{7});
    CHECK(batches[2].labels == std::vector<std::int64_t>{281});
    CHECK(batches[2].inputs[0].tensor.dims() == Dims{1, 3, 4, 4});
    for (const float value : values_of<float>(batches[2].inputs[0].tensor)) CHECK((value >= 0 && value <= 1));
    REQUIRE(source->rewind());
  }
}

TEST_CASE("image source: runs of several images, free and fixed") {
  Folder folder;
  folder.options.batch = 2;
  auto free = require_source(folder.options, kPlanes);
  auto batches = read_all(*free);
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].inputs[0].tensor.dims() == Dims{2, 3, 4, 4});
  CHECK(batches[0].labels == std::vector<std::int64_t>{7, 281});
  CHECK(batches[1].samples == 1);
  auto fixed = require_source(folder.options, {input("x", DType::f32, {2, 4, 4, 3})});
  CHECK(fixed->size() == 2);
  CHECK(fixed->description() == "photos (images, 2 of 3 samples in runs of 2, 1 left over)");
  batches = read_all(*fixed);
  REQUIRE(batches.size() == 1);
  CHECK(batches[0].inputs[0].tensor.dims() == Dims{2, 4, 4, 3});
  require_error(open_source(folder.options, std::vector{input("x", DType::f32, {4, 3, 4, 4})}), Code::bad_input,
                "fewer than the 4");
}

TEST_CASE("image source: fewer samples are spread over the folder") {
  Folder folder;
  folder.options.samples = 2;
  auto source = require_source(folder.options, kPlanes);
  CHECK(source->description() == "photos (images, 2 of 3 samples, evenly spread)");
  const auto batches = read_all(*source);
  CHECK(batches[0].labels[0] == 7);
  CHECK(batches[1].labels[0] == 281);
}

TEST_CASE("image source: an 8-bit input takes the pixels as they are; no batch axis, no batch") {
  Folder folder;
  folder.options.labels.clear();
  auto source = require_source(folder.options, {input("x", DType::u8, {4, 4, 1})});
  CHECK_FALSE(source->has_labels());
  CHECK(source->formula() == "GRAY, resize 4x4 (bicubic), value = (pixel * 1 - 0) / 1, NHWC, rounded to uint8");
  const auto batches = read_all(*source);
  CHECK(batches[0].inputs[0].tensor.dims() == Dims{4, 4, 1});
  CHECK(batches[0].inputs[0].tensor.dtype() == DType::u8);
}

TEST_CASE("image source: without a size, images of one run must be equally large") {
  Folder folder;
  folder.options.batch = 8;
  const std::vector<ValueInfo> open = {input("x", DType::f32, {-1, 3, -1, -1})};
  const auto batches = read_all(*require_source(folder.options, open));
  REQUIRE(batches.size() == 1);
  CHECK(batches[0].inputs[0].tensor.dims() == Dims{3, 3, 53, 37});
  fs::copy(kImages + "one_pixel.png", folder.root + "/cat/b.png");
  require_error(require_source(folder.options, open)->next(), Code::bad_input, "cat/b.png: 1x1 pixels, unlike");
}

TEST_CASE("image source: labels that do not match") {
  Folder folder;
  folder.labels("cat 1\nbig dogs 2\n");
  require_error(open_source(folder.options, kPlanes), Code::bad_input,
                "class 'big dog' is not in labels.txt, did you mean 'big dogs'?");
  folder.labels("cat one\n");
  require_error(open_source(folder.options, kPlanes), Code::bad_input, "labels.txt line 1: 'name index' expected");
  folder.labels("cat -1\n");
  require_error(open_source(folder.options, kPlanes), Code::bad_input, "line 1");
  folder.labels("cat\n");
  require_error(open_source(folder.options, kPlanes), Code::bad_input, "line 1");
  folder.labels("cat 1\ncat 2\n");
  require_error(open_source(folder.options, kPlanes), Code::bad_input, "twice");
  folder.labels("cat 1\nbig dog 2\n");
  fs::copy(kImages + "gray.png", folder.root + "/loose.png");
  require_error(open_source(folder.options, kPlanes), Code::bad_input, "loose.png: labels go by sub-folder");
  folder.options.labels = folder.dir.path("none.txt");
  require_error(open_source(folder.options, kPlanes), Code::io, "none.txt");
}

TEST_CASE("image source: an unreadable image is named") {
  Folder folder;
  write_file(folder.root + "/cat/b.JPG", "this is text");
  auto source = require_source(folder.options, kPlanes);
  REQUIRE(source->next());
  REQUIRE(source->next());
  require_error(source->next(), Code::bad_input, "cat/b.JPG: neither JPEG");
}

TEST_CASE("image source: folders that do not fit") {
  Folder folder;
  require_error(open_source(folder.options, std::vector{kPlanes[0], kPlanes[0]}), Code::bad_input, "this one has 2");
  fs::create_directories(folder.root + "/cat/more");
  require_error(open_source(folder.options, kPlanes), Code::bad_input,
                "cat/more: folders of images may be nested one level");
  fs::create_directories(folder.dir.path("empty"));
  folder.options.path = folder.dir.path("empty") + "/";
  require_error(open_source(folder.options, kPlanes), Code::bad_input, "empty: no .jpg");
}
