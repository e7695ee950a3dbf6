#!/usr/bin/env python3
"""Makes testdata/images: small images and what Pillow decodes and resizes them to.

Run with: tools/debian13 --with-peers -- python3 testdata/scripts/make_image_goldens.py
Pillow 11.1 (Debian 13). The arrays are compared in tests/data/resize_test.cc and tests/data/image_test.cc.
"""
import pathlib

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parent.parent / "images"
SIZES = [(16, 16), (97, 19), (23, 80), (37, 11), (9, 53), (61, 70), (1, 1)]


def photo(width, height, seed):
    """Smooth waves, hard edges and noise: something for every part of a filter to get wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / (3.0 + c) + y / (5.0 - c) + c) for c in range(3)]
    image = np.stack(waves, axis=-1)
    image[height // 4 : height // 2, width // 3 : 2 * width // 3] = (255, 0, 255)
    image += rng.normal(0, 12, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8), "RGB")


def main():
    OUT.mkdir(exist_ok=True)
    source = photo(37, 53, 1)
    source.save(OUT / "source.png")
    golden = {"source": np.asarray(source)}
    for name, kind in (("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)):
        for size in SIZES:
            golden[f"{name}_{size[0]}x{size[1]}"] = np.asarray(source.resize(size, kind))
        golden[f"gray_{name}_16x16"] = np.asarray(source.convert("L").resize((16, 16), kind))

    alpha = source.copy()
    alpha.putalpha(Image.fromarray((np.arange(37 * 53).reshape(53, 37) % 256).astype(np.uint8)))
    cmyk = source.convert("CMYK")
    images = {
        "rgb_420.jpg": (source, {"quality": 90}),
        "progressive.jpg": (source, {"quality": 80, "progressive": True}),
        "gray.jpg": (source.convert("L"), {"quality": 90}),
        "cmyk.jpg": (cmyk, {"quality": 95}),
        "gray.png": (source.convert("L"), {}),
        "palette.png": (source.quantize(17), {}),
        "alpha.png": (alpha, {}),
        "lossless.webp": (source, {"lossless": True}),
        "lossy.webp": (source, {"quality": 80}),
    }
    for name, (image, options) in images.items():
        image.save(OUT / name, **options)
        golden[name] = np.asarray(Image.open(OUT / name).convert("RGB"))
    Image.new("L", (1, 1), 128).save(OUT / "one_pixel.png")
    np.savez_compressed(OUT / "golden.npz", **golden)


if __name__ == "__main__":
    main()
