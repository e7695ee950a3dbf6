#!/usr/bin/env python3
"""Time and memory of calibration in Python, for compare_calibration.sh: "SECONDS PEAK_MB", or a reason.

    peer_calibrate.py MODEL DATA.npz --method minmax|entropy|percentile --samples N [--limit-gb G] [--threads T]
    peer_calibrate.py MODEL DATA.npz --method float --samples N [--threads T]

The first form is onnxruntime.quantization.quantize_static with that calibration method (QDQ, per channel, uint8 x int8),
after its own pre-processing. The time is that of quantize_static alone, without imports and pre-processing; the memory
is that of the process. More than G gigabytes of address space are refused: then the line is "out of memory".
The second form only runs the float model on each of the samples.
"""

import argparse
import os
import resource
import sys
import tempfile
import time

import numpy as np

import ort
import onnxruntime
from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType,
                                      quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process

METHODS = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy,
           "percentile": CalibrationMethod.Percentile}


def feeds(path, samples):
    """One sample at a time; of an uncompressed archive only what is asked for stays in memory."""
    with np.load(path, allow_pickle=False) as archive:
        data = {key: archive[key][:samples].copy() for key in archive.files if key != "labels"}
    for i in range(samples):
        yield {key: array[i:i + 1] for key, array in data.items()}


class Reader(CalibrationDataReader):
    def __init__(self, path, samples):
        self.feeds = feeds(path, samples)

    def get_next(self):
        return next(self.feeds, None)


def quantize(args):
    with tempfile.TemporaryDirectory() as folder, ort.quiet_stderr():
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(args.model, prepared, skip_symbolic_shape=True)
        start = time.perf_counter()
        quantize_static(prepared, os.path.join(folder, "out.onnx"), Reader(args.data, args.samples),
                        quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8, calibrate_method=METHODS[args.method])
        return time.perf_counter() - start


def run_float(args):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    samples = list(feeds(args.data, args.samples))
    for sample in samples[:2]:
        session.run(None, sample)
    start = time.perf_counter()
    for sample in samples:
        session.run(None, sample)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--method", choices=["float", *METHODS], required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--limit-gb", type=float, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    if args.limit_gb:
        resource.setrlimit(resource.RLIMIT_AS, (int(args.limit_gb * 2**30), resource.RLIM_INFINITY))
    try:
        seconds = run_float(args) if args.method == "float" else quantize(args)
    except Exception as error:  # numpy and the runtime have different ones for it
        text = f"{type(error).__name__} {error}".lower()
        if not any(word in text for word in ("memoryerror", "bad_alloc", "allocate")):
            raise
        print("out of memory")
        sys.exit(0)
    print(f"{seconds:.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f}")


if __name__ == "__main__":
    main()
