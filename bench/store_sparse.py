#!/usr/bin/env python3
"""Makes a model of one MatMul with 4.2 M weights, prunes it, stores it sparse in every form, and compares with the dense
model: bytes, time to load (the best of several) and to run (in turns, the tenth percentile), outputs bit by bit.

    store_sparse.py [-o FOLDER] [--runs N]

The outputs of a stored model have to be those of a dense model whose weights are decoded here, by numpy, from its
initializers. Environment: ONNXPRESS.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import ort
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, ROWS = 2048, 64
LIMITS = {"file": 0.06, "load_ms": 100.0, "run": 1.0}  # of the 8-bit codebook at 90 %
TIMING_NOISE = 0.05
# name, options of store-sparse, whether the weights stay as they are
FORMS = [("fp32 values", "values=fp32", True), ("fp16 values", "values=fp16", False),
         ("8-bit codebook", "values=codebook", False), ("sparse_initializer", "form=sparse_initializer", True)]


def matmul_model(weight):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIZE])], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compress(source, target, pipeline):
    program = os.environ.get("ONNXPRESS", pathlib.Path(__file__).resolve().parent.parent / "build/release/onnxpress")
    subprocess.run([program, "-q", "compress", source, "-o", target, "--force", "-p", pipeline], check=True,
                   stdout=subprocess.DEVNULL)


def decode(path):
    """The weight of a stored model, by numpy alone."""
    graph = onnx.load(path).graph
    for sparse in graph.sparse_initializer:
        dense = np.zeros(np.prod(sparse.dims), np.float32)
        dense[numpy_helper.to_array(sparse.indices)] = numpy_helper.to_array(sparse.values)
        return dense.reshape(sparse.dims)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    if "w" in arrays:
        return arrays["w"]
    values = arrays["w_table"][arrays["w_codes"]] if "w_codes" in arrays else arrays["w_values"].astype(np.float32)
    dense = np.zeros(arrays["w_count"][0], np.float32)
    dense[np.cumsum(arrays["w_gaps"].astype(np.int64))] = values
    return dense.reshape(arrays["w_dims"])


def timed(action):
    start = time.perf_counter()
    result = action()
    return 1000 * (time.perf_counter() - start), result


def measure(paths, feed, runs):
    """Milliseconds to load and to run, in turns, so that what else the machine does hits all of them."""
    loads = {name: [] for name in paths}
    times = {name: [] for name in paths}
    sessions = {}
    for _ in range(max(7, runs // 2)):
        for name, path in paths.items():
            took, sessions[name] = timed(lambda path=path: ort.session(path, spinning=False))
            loads[name].append(took)
    for _ in range(runs):
        for name, session in sessions.items():
            times[name].append(timed(lambda session=session: session.run(None, feed))[0])
    return {name: (min(loads[name]), np.percentile(times[name], 10)) for name in paths}


def misses(row):
    found = [] if row["equal"] else ["outputs differ"]
    if row["limits"]:
        found += [f"{key} {row[key]:.3f}, wanted <= {limit}" for key, limit in LIMITS.items()
                  if row[key] > limit * (1 + TIMING_NOISE if key == "run" else 1)]
    return found


def rows_of(folder, dense, feed, runs):
    base = folder / "dense.onnx"
    onnx.save(matmul_model(dense), base)
    paths = {"dense": base}
    exact = {}
    for percent in (80, 90):
        pruned = folder / f"pruned{percent}.onnx"
        compress(base, pruned, f"prune-magnitude{{sparsity={percent / 100}}}")
        for name, options, unchanged in FORMS:
            label = f"{percent} %, {name}"
            paths[label] = folder / f"{label.replace(' ', '_').replace('%,', '')}.onnx"
            compress(pruned, paths[label], f"store-sparse{{{options}}}")
            exact[label] = decode(pruned) if unchanged else None
    figures = measure(paths, feed, runs)
    for label, path in paths.items():
        weight = decode(path)
        equal = label == "dense" or exact[label] is None or np.array_equal(exact[label], weight)
        if label != "dense":
            reference = folder / "reference.onnx"
            onnx.save(matmul_model(weight), reference)
            outputs = [ort.session(which).run(None, feed)[0] for which in (reference, path)]
            equal = equal and outputs[0].tobytes() == outputs[1].tobytes()
        load, run = figures[label]
        yield {"name": label, "bytes": path.stat().st_size, "file": path.stat().st_size / base.stat().st_size,
               "load_ms": load, "run_ms": run, "run": run / figures["dense"][1], "equal": equal,
               "limits": label == "90 %, 8-bit codebook"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=pathlib.Path, help="folder that keeps the models")
    parser.add_argument("--runs", type=int, default=40)
    args = parser.parse_args()
    scratch = None if args.out else tempfile.TemporaryDirectory()
    folder = args.out or pathlib.Path(scratch.name)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    dense = (random.standard_normal((SIZE, SIZE)) / np.sqrt(SIZE)).astype(np.float32)
    feed = {"x": random.standard_normal((ROWS, SIZE)).astype(np.float32)}
    print(f"{'storage':<26} {'bytes':>10} {'file':>6} {'load ms':>8} {'run ms':>7} {'run':>5}  limits")
    failed = False
    for row in rows_of(folder, dense, feed, args.runs):
        missed = misses(row)
        failed = failed or bool(missed)
        print(f"{row['name']:<26} {row['bytes']:>10} {row['file']:>6.3f} {row['load_ms']:>8.1f} {row['run_ms']:>7.2f} "
              f"{row['run']:>5.2f}  {'; '.join(missed) or 'met'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
