// JPEG through libjpeg, whose errors leave by longjmp: the two functions that can be left that way hold no C++ objects.
#include <csetjmp>
#include <cstdio>
// libjpeg's header needs size_t and FILE declared first.
#include <jerror.h>
#include <jpeglib.h>

#include "base/text.h"
#include "data/image.h"

namespace onnxpress {
namespace {

// A progressive file can ask for any number of passes over the whole image; real ones have about ten.
constexpr int kMaxScans = 500;

struct JpegJob {
  jpeg_decompress_struct codec{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf escape{};
  char message[JMSG_LENGTH_MAX] = {};
  bool cut_off = false;

  JpegJob();
  ~JpegJob() { jpeg_destroy_decompress(&codec); }
  JpegJob(const JpegJob&) = delete;
  JpegJob& operator=(const JpegJob&) = delete;
};

JpegJob& job_of(j_common_ptr codec) { return *static_cast<JpegJob*>(codec->client_data); }

[[noreturn]] void on_error(j_common_ptr codec) {
  JpegJob& job = job_of(codec);
  codec->err->format_message(codec, job.message);
  std::longjmp(job.escape, 1);
}

// Warnings are for odd but readable files; data that end early are filled with grey, which must not pass for a photo.
void on_message(j_common_ptr codec, int level) {
  if (level < 0 && codec->err->msg_code == JWRN_JPEG_EOF) job_of(codec).cut_off = true;
}

void on_progress(j_common_ptr codec) {
  if (reinterpret_cast<j_decompress_ptr>(codec)->input_scan_number <= kMaxScans) return;
  JpegJob& job = job_of(codec);
  std::snprintf(job.message, sizeof job.message, "more than %d scans", kMaxScans);
  std::longjmp(job.escape, 1);
}

JpegJob::JpegJob() {
  codec.err = jpeg_std_error(&errors);
  errors.error_exit = on_error;
  errors.emit_message = on_message;
  progress.progress_monitor = on_progress;
  codec.client_data = this;
}

bool read_header(JpegJob& job, const unsigned char* data, unsigned long size) {
  if (setjmp(job.escape) != 0) return false;
  jpeg_create_decompress(&job.codec);
  job.codec.progress = &job.progress;
  jpeg_mem_src(&job.codec, data, size);
  jpeg_read_header(&job.codec, TRUE);
  const bool four_inks = job.codec.jpeg_color_space == JCS_CMYK || job.codec.jpeg_color_space == JCS_YCCK;
  job.codec.out_color_space = four_inks ? JCS_CMYK : JCS_RGB;
  return true;
}

bool read_rows(JpegJob& job, unsigned char* pixels, std::size_t stride) {
  if (setjmp(job.escape) != 0) return false;
  jpeg_start_decompress(&job.codec);
  while (job.codec.output_scanline < job.codec.output_height) {
    JSAMPROW row = pixels + stride * job.codec.output_scanline;
    jpeg_read_scanlines(&job.codec, &row, 1);
  }
  jpeg_finish_decompress(&job.codec);
  return true;
}

// Adobe's programs store the inks inverted, that is, as the light they let through.
Image cmyk_to_rgb(const Image& cmyk, bool inverted) {
  Image rgb = Image::blank(cmyk.width, cmyk.height, 3);
  for (std::size_t i = 0; i < rgb.pixels.size() / 3; ++i) {
    const auto light = [&](std::size_t ink) {
      const unsigned value = cmyk.pixels[i * 4 + ink];
      return inverted ? value : 255 - value;
    };
    for (std::size_t c = 0; c < 3; ++c)
      rgb.pixels[i * 3 + c] = static_cast<std::uint8_t>((light(c) * light(3) + 127) / 255);
  }
  return rgb;
}

}  // namespace

Result<Image> decode_jpeg(std::span<const std::byte> bytes) {
  JpegJob job;
  const auto damaged = [&] { return fail(Code::bad_input, "damaged JPEG: {}", escape_control(job.message)); };
  if (!read_header(job, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size())) return damaged();
  OP_TRY(check_pixels(job.codec.image_width, job.codec.image_height));
  const bool cmyk = job.codec.out_color_space == JCS_CMYK;
  Image image =
      Image::blank(static_cast<int>(job.codec.image_width), static_cast<int>(job.codec.image_height), cmyk ? 4 : 3);
  if (!read_rows(job, image.pixels.data(), image.stride())) return damaged();
  if (job.cut_off) return fail(Code::bad_input, "damaged JPEG: the data end early");
  return cmyk ? cmyk_to_rgb(image, job.codec.saw_Adobe_marker) : std::move(image);
}

}  // namespace onnxpress
