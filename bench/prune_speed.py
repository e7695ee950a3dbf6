#!/usr/bin/env python3
"""MACs are time: prunes a network of 256-channel convolutions to a share of its MACs and times it in ONNX Runtime.

    prune_speed.py ONNXPRESS [--macs 0.5] [--limit 0.58] [--layers 8] [--size 14] [--runs 60] [--threads 1]

Prints the share of the multiply-accumulates that is left and the ratio of the median times, the two models run in turns.
Exit 1 when the ratio is above the limit.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import ort
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 256


def network(layers, size):
    """Conv 3x3 -> Relu, `layers` times; seeded weights with channels of different weight."""
    random = np.random.default_rng(1)
    nodes, constants = [], []
    for i in range(layers):
        weight = random.standard_normal((CHANNELS, CHANNELS, 3, 3)) * np.sqrt(2 / (9 * CHANNELS))
        weight *= random.uniform(0.5, 1.5, (CHANNELS, 1, 1, 1))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        constants.append(numpy_helper.from_array(np.zeros(CHANNELS, np.float32), f"b{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"c{i}"], f"conv{i}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"], f"relu{i}"))
    shape = [1, CHANNELS, size, size]
    graph = helper.make_graph(nodes, "convs", [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def macs(model):
    """Every output element of a Conv is a sum over one filter."""
    weights = {w.name: w.dims for w in model.graph.initializer}
    return sum(np.prod(weights[node.input[1]]) for node in model.graph.node if node.op_type == "Conv")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnxpress")
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--limit", type=float, default=0.58)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--size", type=int, default=14)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        full, pruned = pathlib.Path(folder, "full.onnx"), pathlib.Path(folder, "pruned.onnx")
        model = network(args.layers, args.size)
        onnx.save(model, full)
        subprocess.run([args.onnxpress, "-q", "compress", full, "-o", pruned, "-p", f"prune-channels{{macs={args.macs}}}"],
                       check=True, stdout=subprocess.DEVNULL)
        share = macs(onnx.load(pruned)) / macs(model)
        sessions = [ort.session(path, args.threads, spinning=False) for path in (full, pruned)]
    feed = {"x0": np.random.default_rng(2).standard_normal((1, CHANNELS, args.size, args.size), np.float32)}
    seconds = [[], []]
    for turn in range(args.runs + 5):
        for run, times in zip(sessions, seconds):
            start = time.perf_counter()
            run.run(None, feed)
            if turn >= 5:  # the first turns warm up
                times.append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in seconds]
    ratio = medians[1] / medians[0]
    print(f"MACs left {share:.3f}, time {1e3 * medians[0]:.2f} -> {1e3 * medians[1]:.2f} ms: {ratio:.3f} "
          f"(at most {args.limit})")
    return int(ratio > args.limit or share > args.macs)


if __name__ == "__main__":
    sys.exit(main())
