#!/usr/bin/env python3
"""Prints the share of zeros in the float matrices of an external-data model, reading one row block at a time.

    zero_share.py MODEL.onnx
"""

import pathlib
import sys

import numpy as np
import onnx

BLOCK = 1 << 24  # elements read at a time


def zeros_of(path, tensor):
    entries = {entry.key: entry.value for entry in tensor.external_data}
    left = int(np.prod(tensor.dims, dtype=np.int64))
    total = zeros = 0
    with open(path.parent / entries["location"], "rb") as file:
        file.seek(int(entries.get("offset", 0)))
        while left > 0:
            block = np.fromfile(file, np.float32, min(left, BLOCK))
            if block.size == 0:
                sys.exit(f"zero_share.py: {tensor.name}: the data file ends too early")
            total += block.size
            zeros += block.size - int(np.count_nonzero(block))
            left -= block.size
    return total, zeros


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: zero_share.py MODEL.onnx")
    path = pathlib.Path(sys.argv[1])
    total = zeros = 0
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.external_data:
            counted = zeros_of(path, tensor)
            total, zeros = total + counted[0], zeros + counted[1]
    if total == 0:
        sys.exit("zero_share.py: no external float matrix in the model")
    print(f"{zeros / total:.4f}")


if __name__ == "__main__":
    main()
