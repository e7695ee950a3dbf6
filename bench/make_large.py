#!/usr/bin/env python3
"""Writes a synthetic model of any size: a chain of MatMul + Add layers with float weights, streamed to disk.

    make_large.py FOLDER [--gigabytes 6] [--layers 48] [--seed 1] [--embedded] [--name large]

Writes FOLDER/NAME.onnx and FOLDER/NAME.data (external data, each weight at a multiple of 4096), opset 17. --embedded
puts the weights into the model file instead (at most 1.9 GB). Memory stays at a few megabytes with external data.
"""

import argparse
import math
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ALIGNMENT = 4096
ROWS = 256  # rows of a weight drawn at a time


def weight_chunks(width, seed):
    """A width x width weight, ROWS rows at a time; scaled so that activations keep their size through the layers."""
    generator = np.random.Generator(np.random.SFC64(seed))
    scale = np.float32(math.sqrt(3.0 / width))
    for start in range(0, width, ROWS):
        rows = generator.random((min(ROWS, width - start), width), dtype=np.float32)
        yield (2 * rows - 1) * scale


def external_weight(name, width, location, offset):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[width, width],
                         data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", 4 * width * width)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write_weights(data_path, width, layers, seed):
    """Streams every weight to the external file and returns their initializers."""
    tensors = []
    with open(data_path, "wb") as file:
        for layer in range(layers):
            file.seek(-file.tell() % ALIGNMENT, 1)
            tensors.append(external_weight(f"weight_{layer}", width, data_path.name, file.tell()))
            for chunk in weight_chunks(width, [seed, layer]):
                file.write(chunk.tobytes())
    return tensors


def embedded_weights(width, layers, seed):
    return [numpy_helper.from_array(np.concatenate(list(weight_chunks(width, [seed, layer]))), f"weight_{layer}")
            for layer in range(layers)]


def build(width, weights, seed):
    generator = np.random.Generator(np.random.SFC64([seed, len(weights)]))
    nodes, biases, value = [], [], "input"
    for layer, weight in enumerate(weights):
        last = layer + 1 == len(weights)
        bias = (0.1 * generator.random(width, dtype=np.float32)).astype(np.float32)
        biases.append(numpy_helper.from_array(bias, f"bias_{layer}"))
        product, result = f"product_{layer}", "output" if last else f"sum_{layer}"
        nodes.append(helper.make_node("MatMul", [value, weight.name], [product], name=f"matmul_{layer}"))
        nodes.append(helper.make_node("Add", [product, f"bias_{layer}"], [result], name=f"add_{layer}"))
        value = result
    shape = ["batch", width]
    graph = helper.make_graph(nodes, "large", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)], weights + biases)
    return helper.make_model(graph, producer_name="make_large", ir_version=8,
                             opset_imports=[helper.make_opsetid("", 17)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of weights, 10^9 bytes each")
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedded", action="store_true", help="weights in the model file")
    parser.add_argument("--name", default="large")
    args = parser.parse_args()
    if args.embedded and args.gigabytes > 1.9:
        parser.error("a model file cannot hold more than 1.9 GB; leave --embedded out")
    width = 16 * math.ceil(math.sqrt(args.gigabytes * 1e9 / 4 / args.layers) / 16)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.embedded:
        weights = embedded_weights(width, args.layers, args.seed)
    else:
        weights = write_weights(args.folder / f"{args.name}.data", width, args.layers, args.seed)
    path = args.folder / f"{args.name}.onnx"
    path.write_bytes(build(width, weights, args.seed).SerializeToString(deterministic=True))
    print(f"{path}: {args.layers} layers of {width}x{width}, {4 * width * width * args.layers} bytes of weights")


if __name__ == "__main__":
    main()
