#!/usr/bin/env python3
"""Decodes a folder of image folders into one .npz, for peers that read arrays only.

    images_to_npz.py FOLDER OUT.npz --size 224x224 [--scale 127.5] [--labels labels.txt] [--input NAME] [--samples N]

Pixels become x / scale - 1, RGB, NCHW. With fewer samples than images every n-th is taken, as onnxpress does.
"""

import argparse
import pathlib

import numpy as np
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out")
    parser.add_argument("--size", required=True)
    parser.add_argument("--scale", type=float, default=127.5)
    parser.add_argument("--labels", type=pathlib.Path)
    parser.add_argument("--input", default="input")
    parser.add_argument("--samples", type=int)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    files = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg", ".png"))
    if args.samples and args.samples < len(files):
        files = [files[i * len(files) // args.samples] for i in range(args.samples)]
    pixels = np.empty((len(files), 3, height, width), np.float32)
    for i, file in enumerate(files):
        image = Image.open(file).convert("RGB").resize((width, height), Image.BILINEAR)
        pixels[i] = (np.asarray(image, np.float32) / args.scale - 1).transpose(2, 0, 1)
    arrays = {args.input: pixels}
    if args.labels:
        classes = dict(line.split() for line in args.labels.read_text().splitlines() if line.strip())
        arrays["labels"] = np.array([int(classes[file.parent.name]) for file in files], np.int64)
    np.savez(args.out, **arrays)


if __name__ == "__main__":
    main()
