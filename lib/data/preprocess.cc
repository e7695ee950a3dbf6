#include "data/preprocess.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cmath>

#include "base/text.h"
#include "data/fit.h"

namespace onnxpress {
namespace {

constexpr std::uint8_t kLetterboxGray = 114;
constexpr std::string_view kImagenet =
    "resize=256,crop=224x224,filter=bilinear,scale=1/255,mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225],color=RGB";

// "a,b=[c,d]" at commas outside brackets.
std::vector<std::string> split_items(std::string_view text) {
  std::vector<std::string> items(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == ',' && depth == 0) {
      items.emplace_back();
    } else {
      items.back() += c;
    }
  }
  return items;
}

std::optional<double> parse_number(std::string_view text) {
  text = trim(text);
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<int> parse_side(std::string_view text) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 1) return std::nullopt;
  return value;
}

Result<GeometryStep> parse_geometry(GeometryStep::Kind kind, std::string_view key, std::string_view value) {
  const bool may_be_short = kind == GeometryStep::Kind::resize;
  const std::size_t x = value.find('x');
  const auto width = parse_side(value.substr(0, x));
  const auto height = x == std::string_view::npos ? width : parse_side(value.substr(x + 1));
  if (!width || !height || (x == std::string_view::npos && !may_be_short))
    return fail(Code::usage, "preprocess: {}={} is not {}", key, value, may_be_short ? "WxH or a short side" : "WxH");
  if (auto status = check_pixels(static_cast<std::uint64_t>(*width), static_cast<std::uint64_t>(*height)); !status)
    return fail(Code::usage, "preprocess: {}={}: {}", key, value, status.error().text());
  return GeometryStep{x == std::string_view::npos ? GeometryStep::Kind::short_side : kind, *width, *height};
}

Result<double> parse_scale(std::string_view value) {
  const std::size_t slash = value.find('/');
  const auto above = parse_number(value.substr(0, slash));
  const auto below = slash == std::string_view::npos ? 1.0 : parse_number(value.substr(slash + 1));
  if (!above || !below || *below == 0 || !std::isfinite(*above / *below))
    return fail(Code::usage, "preprocess: scale={} is neither a number nor A/B", value);
  return *above / *below;
}

Result<std::vector<double>> parse_list(std::string_view key, std::string_view value) {
  const bool bracketed = value.starts_with('[') && value.ends_with(']') && value.size() >= 2;
  const std::vector<std::string> parts = bracketed ? split(value.substr(1, value.size() - 2), ',') : split(value, ':');
  std::vector<double> numbers;
  for (const std::string& part : parts) {
    const auto number = parse_number(part);
    if (!number) return fail(Code::usage, "preprocess: {}={} is not a number, [a,b,c] or a:b:c", key, value);
    if (key == "std" && *number <= 0) return fail(Code::usage, "preprocess: {}={} must be above 0", key, value);
    numbers.push_back(*number);
  }
  return numbers;
}

// The position of `value` among the spellings of `key`.
Result<std::size_t> parse_choice(std::string_view key, std::string_view value,
                                 const std::vector<std::string>& choices) {
  const auto found = std::ranges::find(choices, value);
  if (found != choices.end()) return static_cast<std::size_t>(found - choices.begin());
  return fail(Code::usage, "preprocess: {}={} is not one of {}{}", key, value, join(choices, ", "),
              did_you_mean(value, choices));
}

const std::vector<std::string> kKeys = {"resize", "crop", "letterbox", "filter", "scale",
                                        "mean",   "std",  "color",     "layout", "imagenet"};

Status set_key(Preprocess& out, std::string_view key, std::string_view value) {
  using Kind = GeometryStep::Kind;
  if (key == "resize" || key == "crop" || key == "letterbox") {
    const Kind kind = key == "resize" ? Kind::resize : key == "crop" ? Kind::crop : Kind::letterbox;
    OP_LET(const GeometryStep step, parse_geometry(kind, key, value));
    out.geometry.push_back(step);
  } else if (key == "filter") {
    OP_LET(const std::size_t choice, parse_choice(key, value, {"bicubic", "bilinear"}));
    out.filter = std::array{Filter::bicubic, Filter::bilinear}[choice];
  } else if (key == "scale") {
    OP_LET(out.scale, parse_scale(value));
    out.scale_text = value;
  } else if (key == "mean") {
    OP_LET(out.mean, parse_list(key, value));
  } else if (key == "std") {
    OP_LET(out.std, parse_list(key, value));
  } else if (key == "color") {
    OP_LET(const std::size_t choice, parse_choice(key, value, {"RGB", "BGR", "GRAY"}));
    out.color = std::array{Color::rgb, Color::bgr, Color::gray}[choice];
  } else if (key == "layout") {
    OP_LET(const std::size_t choice, parse_choice(key, value, {"NCHW", "NHWC"}));
    out.layout = std::array{Layout::nchw, Layout::nhwc}[choice];
  } else {
    return fail(Code::usage, "preprocess: unknown key '{}'{}", key, did_you_mean(key, kKeys));
  }
  return {};
}

bool is_geometry(std::string_view key) { return key == "resize" || key == "crop" || key == "letterbox"; }

int scaled_side(int side, double scale) { return std::max(1, static_cast<int>(std::nearbyint(side * scale))); }

Image cropped(const Image& image, int left, int top, int width, int height) {
  Image out = Image::blank(width, height, image.channels);
  const auto channels = static_cast<std::size_t>(image.channels);
  for (int y = 0; y < height; ++y) {
    const std::size_t row = static_cast<std::size_t>(top + y) * image.stride();
    std::copy_n(&image.pixels[row + static_cast<std::size_t>(left) * channels], out.stride(),
                &out.pixels[static_cast<std::size_t>(y) * out.stride()]);
  }
  return out;
}

Image letterboxed(const Image& image, int width, int height, Filter filter) {
  const double scale = std::min(static_cast<double>(width) / image.width, static_cast<double>(height) / image.height);
  const Image inner = resize(image, std::min(width, scaled_side(image.width, scale)),
                             std::min(height, scaled_side(image.height, scale)), filter);
  Image out = Image::blank(width, height, image.channels, kLetterboxGray);
  const auto left = static_cast<std::size_t>((width - inner.width) / 2) * static_cast<std::size_t>(image.channels);
  const auto top = static_cast<std::size_t>((height - inner.height) / 2);
  for (std::size_t y = 0; y < static_cast<std::size_t>(inner.height); ++y)
    std::copy_n(&inner.pixels[y * inner.stride()], inner.stride(), &out.pixels[(top + y) * out.stride() + left]);
  return out;
}

Result<Image> apply_step(const Image& image, const GeometryStep& step, Filter filter) {
  switch (step.kind) {
    case GeometryStep::Kind::resize:
      return resize(image, step.width, step.height, filter);
    case GeometryStep::Kind::letterbox:
      return letterboxed(image, step.width, step.height, filter);
    case GeometryStep::Kind::short_side: {
      const std::int64_t shorter = std::min(image.width, image.height), longer = std::max(image.width, image.height);
      const std::int64_t grown = step.width * longer / shorter;
      OP_TRY(check_pixels(static_cast<std::uint64_t>(step.width), static_cast<std::uint64_t>(grown)));
      const bool portrait = image.height > image.width;
      return resize(image, portrait ? step.width : static_cast<int>(grown),
                    portrait ? static_cast<int>(grown) : step.width, filter);
    }
    case GeometryStep::Kind::crop:
      break;
  }
  if (image.width < step.width || image.height < step.height)
    return fail(Code::bad_input, "crop={}x{} exceeds the image of {}x{}; resize it first", step.width, step.height,
                image.width, image.height);
  // Half a pixel goes to the even side, as Python's round().
  const int left = static_cast<int>(std::nearbyint((image.width - step.width) / 2.0));
  const int top = static_cast<int>(std::nearbyint((image.height - step.height) / 2.0));
  return cropped(image, left, top, step.width, step.height);
}

std::string list_text(const std::vector<double>& values) {
  std::vector<std::string> parts;
  for (const double value : values) parts.push_back(number_text(value));
  return parts.size() == 1 ? parts[0] : "[" + join(parts, ", ") + "]";
}

Layout layout_of(const std::vector<Dim>& shape) {
  const auto counts_channels = [](const Dim& dim) { return dim.value == 1 || dim.value == 3; };
  const bool last = counts_channels(shape.back()) && !counts_channels(shape[shape.size() - 3]);
  return last ? Layout::nhwc : Layout::nchw;
}

Status check_lists(const Preprocess& preprocess) {
  const auto channels = static_cast<std::size_t>(preprocess.channels());
  for (const auto& [key, list] : {std::pair("mean", &preprocess.mean), std::pair("std", &preprocess.std)}) {
    if (list->size() != 1 && list->size() != channels)
      return fail(Code::usage, "preprocess: {} has {} numbers for {} channels", key, list->size(), channels);
  }
  return {};
}

}  // namespace

Result<Preprocess> parse_preprocess(std::string_view text) {
  Preprocess out;
  if (trim(text).empty()) return out;
  std::vector<std::string> seen;
  std::vector<GeometryStep> preset_geometry;
  for (const std::string& item : split_items(text)) {
    const std::string_view trimmed = trim(item);
    const std::size_t equals = trimmed.find('=');
    const std::string key(trim(trimmed.substr(0, equals)));
    if (equals == std::string_view::npos) {
      if (key != "imagenet") return fail(Code::usage, "preprocess: '{}' has no value{}", key, did_you_mean(key, kKeys));
      if (!seen.empty()) return fail(Code::usage, "preprocess: {} comes first, what overrides it after", key);
      OP_LET(out, parse_preprocess(kImagenet));
      preset_geometry = std::move(out.geometry);
      out.geometry.clear();
      seen.push_back(key);
      continue;
    }
    if (!is_geometry(key) && std::ranges::contains(seen, key))
      return fail(Code::usage, "preprocess: {} is given twice", key);
    seen.push_back(key);
    OP_TRY(set_key(out, key, trim(trimmed.substr(equals + 1))));
  }
  if (out.geometry.empty()) out.geometry = std::move(preset_geometry);
  return out;
}

Status resolve_preprocess(Preprocess& preprocess, const ValueInfo& input) {
  const std::string name = escape_control(input.name);
  const auto& type = input.type;
  if (!type.is_tensor || !(is_float(type.dtype) || is_integer(type.dtype)) ||
      (type.shape && type.shape->size() != 4 && type.shape->size() != 3))
    return fail(Code::bad_input, "input '{}' of type {} takes no images", name, type_text(type));
  if (!preprocess.layout) preprocess.layout = type.shape ? layout_of(*type.shape) : Layout::nchw;
  const bool planar = preprocess.layout == Layout::nchw;
  std::optional<std::int64_t> channels, height, width;
  if (type.shape) {
    const std::size_t first = type.shape->size() - 3;
    channels = type.dim(planar ? first : first + 2);
    height = type.dim(planar ? first + 1 : first);
    width = type.dim(planar ? first + 2 : first + 1);
  }
  if (!preprocess.color) preprocess.color = channels == 1 ? Color::gray : Color::rgb;
  if (channels && *channels != preprocess.channels())
    return fail(Code::usage, "preprocess: {} channels do not fit input '{}' of type {} (color= and layout= decide)",
                preprocess.channels(), name, type_text(type));
  OP_TRY(check_lists(preprocess));
  if (!width || !height) return {};
  const auto size = fmt::format("{}x{}", *width, *height);
  if (preprocess.geometry.empty()) {
    OP_LET(const GeometryStep step, parse_geometry(GeometryStep::Kind::resize, "resize", size));
    preprocess.geometry.push_back(step);
  }
  const GeometryStep& last = preprocess.geometry.back();
  if (last.kind != GeometryStep::Kind::short_side && (last.width != *width || last.height != *height))
    return fail(Code::usage, "preprocess: images of {}x{} do not fit input '{}' of type {} ({} is wanted)", last.width,
                last.height, name, type_text(type), size);
  return {};
}

std::string preprocess_formula(const Preprocess& preprocess) {
  static constexpr std::array colors = {"RGB", "BGR", "GRAY"};
  std::string text = colors[static_cast<std::size_t>(preprocess.color.value_or(Color::rgb))];
  for (const GeometryStep& step : preprocess.geometry) {
    const std::string size = fmt::format("{}x{}", step.width, step.height);
    switch (step.kind) {
      case GeometryStep::Kind::resize:
        text += fmt::format(", resize {} ({})", size, filter_name(preprocess.filter));
        break;
      case GeometryStep::Kind::short_side:
        text += fmt::format(", resize short side {} ({})", step.width, filter_name(preprocess.filter));
        break;
      case GeometryStep::Kind::crop:
        text += fmt::format(", crop {} (centre)", size);
        break;
      case GeometryStep::Kind::letterbox:
        text += fmt::format(", letterbox {} ({}, grey {})", size, filter_name(preprocess.filter), kLetterboxGray);
        break;
    }
  }
  return text + fmt::format(", value = (pixel * {} - {}) / {}, {}", preprocess.scale_text, list_text(preprocess.mean),
                            list_text(preprocess.std), preprocess.layout == Layout::nhwc ? "NHWC" : "NCHW");
}

Result<Image> apply_geometry(const Image& rgb, const Preprocess& preprocess) {
  Image image = preprocess.color == Color::gray ? to_gray(rgb) : rgb;
  for (const GeometryStep& step : preprocess.geometry) {
    OP_LET(image, apply_step(image, step, preprocess.filter));
  }
  return image;
}

void write_values(const Image& image, const Preprocess& preprocess, std::span<float> out) {
  const auto channels = static_cast<std::size_t>(image.channels);
  const std::size_t count = image.pixels.size() / channels;
  assert(out.size() == image.pixels.size());
  const bool planar = preprocess.layout != Layout::nhwc;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto pick = [&](const std::vector<double>& list) { return list.size() == 1 ? list[0] : list[c]; };
    std::array<float, 256> values;
    for (std::size_t level = 0; level < values.size(); ++level)
      values[level] = static_cast<float>((static_cast<double>(level) * preprocess.scale - pick(preprocess.mean)) /
                                         pick(preprocess.std));
    const std::size_t source = preprocess.color == Color::bgr ? channels - 1 - c : c;
    for (std::size_t i = 0; i < count; ++i)
      out[planar ? c * count + i : i * channels + c] = values[image.pixels[i * channels + source]];
  }
}

}  // namespace onnxpress
