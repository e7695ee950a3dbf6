#!/usr/bin/env python3
"""Times models of the same interface against each other in ONNX Runtime: runs interleaved, medians, ratios to the first.

    latency.py FLOAT.onnx OTHER.onnx... [--inputs INPUTS.npz] [--runs N] [--threads N]

The first sample of INPUTS.npz is what every run gets; without it the inputs are zeros, free dimensions 1.
"""

import argparse
import json
import statistics
import time

import numpy as np
import ort

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def feed_of(run, path):
    if path:
        data, _ = ort.load_npz(path)
        return next(feed for _, feed in ort.batches(data, run.get_inputs()[0].shape[0], 1))
    return {i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], TYPES[i.type])
            for i in run.get_inputs()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--inputs")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    # Without spinning: the idle threads of one session would take the cores from the next.
    runs = [ort.session(model, args.threads, spinning=False) for model in args.models]
    feed = feed_of(runs[0], args.inputs)
    seconds = [[] for _ in runs]
    for turn in range(args.runs + 5):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run.run(None, feed)
            if turn >= 5:  # the first turns warm up
                seconds[i].append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in seconds]
    for model, median in zip(args.models, medians):
        print(json.dumps({"model": model, "median_ms": round(1e3 * median, 4),
                          "times_as_fast_as_first": round(medians[0] / median, 3)}))


if __name__ == "__main__":
    main()
