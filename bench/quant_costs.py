#!/usr/bin/env python3
"""Measures what nodes cost in ONNX Runtime in float and in 8-bit integers, and fits the table quant-static places
nodes with (lib/quant/static_cost_table.cc). Prints the rows of that table.

    quant_costs.py [--runs 60] [--only conv] [--points]

Every point is a one-node model (a quantized one between QuantizeLinear and DequantizeLinear), timed by the runtime's own
profiler: the mean of the middle half of the runs. Features of a node, by which its time is linear:
fixed (microseconds), macs (multiplications of the padded operands), outputs (elements), patches (elements gathered
before the product: output positions x taps), weights (elements of a constant operand), all in nanoseconds each.
Coefficients are non-negative and minimize the relative error.
"""

import argparse
import collections
import json
import math
import os
import tempfile
import time

import numpy as np

import ort  # must come before other users of onnxruntime
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = ["fixed", "macs", "outputs", "patches", "weights"]


def up(value, block):
    return -(-value // block) * block


class Builder:
    """A model x -> [Q, DQ] -> node -> [Q, DQ] -> y."""

    def __init__(self, integer):
        self.integer, self.nodes, self.inits, self.count = integer, [], [], 0

    def const(self, array):
        self.count += 1
        name = f"c{self.count}"
        self.inits.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, outputs=None, **attributes):
        self.count += 1
        outputs = outputs or [f"v{self.count}"]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"n{self.count}", **attributes))
        return outputs[0]

    def pair(self, value, out=None, params=None):
        if not self.integer:
            return self.node("Identity", [value], [out]) if out else value
        scale, zero = params or (self.const(np.float32(0.03)), self.const(np.uint8(110)))
        codes = self.node("QuantizeLinear", [value, scale, zero])
        return self.node("DequantizeLinear", [codes, scale, zero], [out] if out else None)

    def weight(self, array, axis):
        if not self.integer:
            return self.const(array.astype(np.float32))
        codes = np.clip(np.round(array * 100), -127, 127).astype(np.int8)
        scale = self.const(np.full(array.shape[axis], 0.01, np.float32))
        zero = self.const(np.zeros(array.shape[axis], np.int8))
        return self.node("DequantizeLinear", [self.const(codes), scale, zero], axis=axis)

    def bias(self, channels):
        if not self.integer:
            return self.const(np.zeros(channels, np.float32))
        return self.node("DequantizeLinear", [self.const(np.ones(channels, np.int32)),
                                              self.const(np.full(channels, 0.0003, np.float32)),
                                              self.const(np.zeros(channels, np.int32))], axis=0)


def make_model(builder, feeds, result):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in feeds.items()]
    graph = helper.make_graph(builder.nodes, "g", inputs,
                              [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)], builder.inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def run_time(builder, feeds, result, runs):
    """Microseconds of one run: the smallest of many."""
    options = ort.onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.onnxruntime.InferenceSession(make_model(builder, feeds, result), options,
                                               providers=["CPUExecutionProvider"])
    best = math.inf
    for _ in range(runs + 5):
        start = time.perf_counter()
        session.run(None, feeds)
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def profile(builder, feeds, result, runs):
    """Microseconds of the nodes of each op."""
    options = ort.onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = os.path.join(folder, "p")
        session = ort.onnxruntime.InferenceSession(make_model(builder, feeds, result), options,
                                                   providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, feeds)
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    times, ops = collections.defaultdict(list), {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"])
            ops[event["name"]] = event["args"]["op_name"]
    by_op = collections.Counter()
    for name, values in times.items():
        values = sorted(values[len(values) // 4:])
        middle = values[len(values) // 4:3 * len(values) // 4 + 1]
        by_op[ops[name]] += sum(middle) / len(middle)
    return by_op


CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Identity"}


def node_time(by_op, keep=()):
    """Everything but conversions; layout changes of 8-bit values count as conversions too (see `layout`)."""
    return sum(t for op, t in by_op.items() if op not in CONVERSIONS | {"Transpose"} or op in keep)


def conv_features(n, cin, cout, h, w, kernel, stride, group, integer):
    oh, ow = -(-h // stride), -(-w // stride)
    positions, taps = n * oh * ow, kernel * kernel
    depthwise = group == cin and group > 1
    if depthwise:
        macs = positions * taps * up(cout, 16)
    elif integer:
        macs = positions * up(taps * cin // group, 4) * up(cout // group, 16) * group
    else:
        rows = cin // group if cin // group < 16 else up(cin // group, 16)
        macs = positions * taps * rows * up(cout // group, 16) * group
    # The integer depthwise kernel takes 8 channels at a time and what is left one by one.
    patches = positions * taps * (1 + 2 * (cout % 8) if depthwise else group) if kernel > 1 else 0
    return [1, macs, positions * cout, patches, 0]


def conv_point(shape, integer, runs):
    n, cin, cout, h, w, kernel, stride, group = shape
    builder = Builder(integer)
    x = builder.pair("x")
    weight = builder.weight(np.random.default_rng(1).uniform(-1, 1, (cout, cin // group, kernel, kernel)), 0)
    pad = kernel // 2
    c = builder.node("Conv", [x, weight, builder.bias(cout)], pads=[pad] * 4, strides=[stride] * 2, group=group)
    builder.pair(builder.node("Relu", [c]) if not integer else c, "y")
    feeds = {"x": np.random.default_rng(2).standard_normal((n, cin, h, w)).astype(np.float32)}
    return node_time(profile(builder, feeds, "y", runs))


def matmul_point(shape, integer, runs):
    m, k, n = shape
    builder = Builder(integer)
    x = builder.pair("x")
    weight = builder.weight(np.random.default_rng(1).uniform(-1, 1, (k, n)), 1)
    builder.node("MatMul", [x, weight], ["y"])
    feeds = {"x": np.random.default_rng(2).standard_normal((1, m, k)).astype(np.float32)}
    return node_time(profile(builder, feeds, "y", runs))


def product_point(shape, integer, runs):
    b, m, k, n = shape
    builder = Builder(integer)
    builder.node("MatMul", [builder.pair("x"), builder.pair("z")], ["y"])
    rng = np.random.default_rng(2)
    feeds = {"x": rng.standard_normal((1, b, m, k)).astype(np.float32),
             "z": rng.standard_normal((1, b, k, n)).astype(np.float32)}
    return node_time(profile(builder, feeds, "y", runs))


def plain(op, inputs=1, same_params=False, constants=(), **attributes):
    def point(shape, integer, runs):
        builder = Builder(integer)
        names = ["x", "z"][:inputs]
        params = (builder.const(np.float32(0.03)), builder.const(np.uint8(110))) if same_params else None
        values = [builder.pair(name, params=params) for name in names]
        made = builder.node(op, values + [builder.const(c) for c in constants], **attributes)
        builder.pair(made, "y", params)
        rng = np.random.default_rng(2)
        feeds = {name: rng.standard_normal(shape).astype(np.float32) for name in names}
        return node_time(profile(builder, feeds, "y", runs), keep={"Transpose"} if op == "Transpose" else ())
    return point


def between_convolutions(op, own, **attributes):
    """Images lie channels last between integer convolutions and blocked between float ones, where pools are fast."""
    def point(shape, integer, runs):
        channels = shape[1]
        builder = Builder(integer)
        params = (builder.const(np.float32(0.03)), builder.const(np.uint8(110)))
        weight = np.ones((channels, channels, 1, 1))
        x = builder.node("Conv", [builder.pair("x"), builder.weight(weight, 0), builder.bias(channels)])
        pooled = builder.node(op, [builder.pair(x, params=params)], **attributes)
        pooled = builder.pair(pooled, params=params if op == "MaxPool" else None)
        builder.pair(builder.node("Conv", [pooled, builder.weight(weight, 0), builder.bias(channels)]), "y")
        feeds = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
        by_op = profile(builder, feeds, "y", runs)
        return sum(time for name, time in by_op.items() if own in name)
    return point


def overhead(_, integer, runs):
    """Of a node whatever it computes: a chain of tiny ones, timed as a whole."""
    builder = Builder(False)
    value, count = "x", 200
    for _ in range(count - 1):
        value = builder.node("Neg", [value])
    builder.node("Neg", [value], ["y"])
    feeds = {"x": np.ones((1, 4), np.float32)}
    return run_time(builder, feeds, "y", runs) / count


def conversion(op):
    def point(shape, _, runs):
        builder = Builder(True)
        x = builder.pair("x")
        builder.pair(builder.node("Sigmoid", [x]), "y")
        feeds = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
        return profile(builder, feeds, "y", runs)[op]
    return point


def layout(integer):
    """What an activation pays to change layout: blocked for float convolutions, channels last for integer ones."""
    def point(shape, _, runs):
        n, c, h, w = shape
        builder = Builder(integer)
        x = builder.pair("x")
        weight = builder.weight(np.ones((c, c, 1, 1)), 0)
        builder.pair(builder.node("Conv", [x, weight, builder.bias(c)]), "y")
        feeds = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
        by_op = profile(builder, feeds, "y", runs)
        return (by_op["Transpose"] + by_op["ReorderInput"] + by_op["ReorderOutput"]) / 2
    return point


PLAIN_SHAPES = [(1, 16, 8, 8), (1, 64, 14, 14), (1, 32, 56, 56), (1, 128, 28, 28), (1, 64, 56, 56), (1, 16, 112, 112)]


def outputs_of(scale=1.0):
    return lambda shape, integer: [1, 0, float(np.prod(shape)) * scale, 0, 0]


def windows(taps):
    """Pools of stride 2: multiplications are elements looked at."""
    return lambda shape, integer: [1, float(np.prod(shape)) / 4 * taps, float(np.prod(shape)) / 4, 0, 0]


def suites():
    dense = [(1, c, d, s, s, k, t, 1) for c, d, s, k, t in [
        (3, 8, 112, 3, 2), (3, 16, 112, 3, 2), (3, 32, 224, 3, 2), (3, 64, 112, 7, 2), (1, 32, 64, 3, 1), (8, 8, 32, 3, 1), (16, 16, 32, 3, 1),
        (16, 32, 32, 3, 2), (32, 32, 16, 3, 1), (64, 64, 8, 3, 1), (64, 64, 28, 3, 1), (64, 64, 56, 3, 1), (128, 128, 28, 3, 1),
        (256, 256, 14, 3, 1), (512, 512, 7, 3, 1), (48, 48, 20, 5, 1)]]
    pointwise = [(1, c, d, s, s, 1, t, 1) for c, d, s, t in [
        (8, 16, 112, 1), (16, 32, 56, 1), (32, 32, 56, 1), (32, 64, 28, 1), (64, 64, 28, 1), (128, 128, 14, 1), (128, 256, 7, 1),
        (256, 256, 7, 1), (256, 512, 14, 1), (64, 256, 56, 1), (256, 64, 56, 1), (512, 512, 7, 1), (172, 172, 8, 1), (16, 96, 20, 1),
        (128, 256, 28, 2), (256, 1000, 1, 1)]]
    depthwise = [(1, c, c, s, s, k, t, c) for c, s, k, t in [
        (8, 112, 3, 1), (16, 112, 3, 2), (32, 56, 3, 1), (32, 56, 3, 2), (64, 28, 3, 1), (128, 14, 3, 1), (256, 7, 3, 1), (128, 14, 5, 1),
        (172, 12, 3, 1), (96, 40, 3, 1), (512, 14, 3, 1)]]
    grouped = [(1, c, c, s, s, 3, 1, g) for c, s, g in [(32, 28, 2), (64, 28, 4), (64, 14, 2), (128, 28, 32), (128, 14, 8)]]
    matmuls = [(1, 64, 64), (1, 256, 256), (1, 1024, 1000), (1, 512, 2048), (8, 64, 64), (8, 256, 1024), (16, 128, 128), (64, 64, 64),
               (128, 64, 64), (128, 64, 172), (128, 172, 64), (128, 64, 512), (32, 768, 768), (128, 256, 256), (197, 192, 768), (65, 48, 96)]
    products = [(1, 64, 64, 64), (4, 64, 32, 64), (8, 128, 8, 128), (8, 128, 128, 8), (12, 64, 64, 64), (6, 197, 64, 197), (6, 197, 197, 64)]

    def conv(shape, integer):
        return conv_features(*shape, integer)

    def matmul(shape, _):
        m, k, n = shape
        return [1, m * up(k, 4) * up(n, 16), m * n, 0, k * n]

    def product(shape, _):
        b, m, k, n = shape
        return [1, b * m * up(k, 4) * up(n, 16), b * m * n, 0, b * k * n]

    flat = outputs_of()
    plain_suites = {
        "add": (plain("Add", 2), flat), "mul": (plain("Mul", 2), flat), "concat": (plain("Concat", 2, axis=1), outputs_of(2)),
        "average_pool": (between_convolutions("AveragePool", "AveragePool", kernel_shape=[2, 2], strides=[2, 2]), windows(4)),
        "global_average_pool": (between_convolutions("GlobalAveragePool", "AveragePool"), flat),
        "sigmoid": (plain("Sigmoid"), flat), "leaky_relu": (plain("LeakyRelu"), flat), "softmax": (plain("Softmax"), flat),
        "max_pool": (between_convolutions("MaxPool", "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), windows(9)),
        "transpose": (plain("Transpose", same_params=True, perm=[0, 2, 3, 1]), flat),
        "slice": (plain("Slice", same_params=True, constants=[np.array([1]), np.array([10000]), np.array([1])]), flat),
        "resize": (plain("Resize", same_params=True, constants=[np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)], mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor"), outputs_of(4)),
    }
    found = {"conv": (conv_point, dense, conv), "conv.pointwise": (conv_point, pointwise, conv),
             "conv.depthwise": (conv_point, depthwise, conv), "conv.grouped": (conv_point, grouped, conv),
             "matmul": (matmul_point, matmuls, matmul), "product": (product_point, products, product)}
    found |= {name: (point, PLAIN_SHAPES, features) for name, (point, features) in plain_suites.items()}
    found["layout"] = (lambda shape, integer, runs: layout(integer)(shape, integer, runs), PLAIN_SHAPES, flat)
    found["node"] = (overhead, [(1,)], lambda shape, integer: [1, 0, 0, 0, 0])
    found["quantize"] = (conversion("QuantizeLinear"), PLAIN_SHAPES, outputs_of(2))  # its models have two of them
    found["dequantize"] = (conversion("DequantizeLinear"), PLAIN_SHAPES, outputs_of(2))
    return found


def fit(features, times):
    """Non-negative least squares of the relative error, by coordinate descent."""
    a = np.array(features, float) / np.array(times, float)[:, None]
    scale = a.max(0)
    used = scale > 0
    b = a[:, used] / scale[used]
    x = np.zeros(b.shape[1])
    gram, rhs = b.T @ b, b.sum(0)
    for _ in range(200000):
        previous = x.copy()
        for i in range(len(x)):
            x[i] = max(0.0, x[i] + (rhs[i] - gram[i] @ x) / gram[i, i])
        if np.abs(x - previous).max() < 1e-12:
            break
    result = np.zeros(len(scale))
    result[used] = x / scale[used]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=60, help="of every point")
    parser.add_argument("--only", default="", help="suites whose name starts with this")
    parser.add_argument("--points", action="store_true", help="print every point with its fit")
    args = parser.parse_args()
    for name, (point, shapes, features) in suites().items():
        if not name.startswith(args.only):
            continue
        row = []
        for integer in (False, True):
            rows = [features(shape, integer) for shape in shapes]
            times = [max(point(shape, integer, args.runs), 0.1) for shape in shapes]
            found = fit(rows, times)
            if args.points:
                for shape, one, took in zip(shapes, rows, times):
                    print(f"//   {name} {'integer' if integer else 'float'} {shape}: {took:.1f} us, fit {np.dot(one, found):.1f}")
            row.append("{" + ", ".join(f"{v:.3g}" if v > 1e-9 else "0" for v in [found[0], *(found[1:] * 1000)]) + "}")
        print(f'    CostRow{{"{name}", {row[0]}, {row[1]}}},', flush=True)


if __name__ == "__main__":
    main()
