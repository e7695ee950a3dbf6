#!/usr/bin/env python3
"""Static quantization by onnxruntime.quantization, measured: min-max, QDQ, per channel, uint8 x int8.

    peer_static.py MODEL CALIB.npz EVAL.npz [-o OUT.onnx] [--samples N] [--metric top1|perplexity] [--reduce-range]

The peer's own pre-processing (shape inference, batch-norm folding) runs first, as its documentation advises.
--reduce-range gives weights 7 bits, which x86 without VNNI needs: its 8-bit kernels saturate.
Prints JSON: the row of the quantized model.
"""

import argparse
import json
import os
import tempfile

import ort
from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType,
                                      quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process


class NpzReader(CalibrationDataReader):
    def __init__(self, model, path, samples):
        data, _ = ort.load_npz(path)
        data = {key: a[:samples] for key, a in data.items()} if samples else data
        self.feeds = iter([feed for _, feed in ort.batches(data, ort.session(model).get_inputs()[0].shape[0], 1)])

    def get_next(self):
        return next(self.feeds, None)


def quantize(model, calib, samples, out, reduce_range=False):
    with tempfile.TemporaryDirectory() as folder, ort.quiet_stderr():
        prepared = os.path.join(folder, "prepared.onnx")
        # Symbolic shape inference needs sympy, which Debian's package does not bring; the plain one is enough here.
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, out, NpzReader(prepared, calib, samples), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        calibrate_method=CalibrationMethod.MinMax, reduce_range=reduce_range)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("calib")
    parser.add_argument("eval")
    parser.add_argument("-o", "--out", help="keep the quantized model here")
    parser.add_argument("--samples", type=int, help="calibrate on the first N samples only")
    parser.add_argument("--metric", choices=sorted(ort.METRICS), default="top1")
    parser.add_argument("--reduce-range", action="store_true", help="7-bit weights")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or os.path.join(folder, "peer.onnx")
        quantize(args.model, args.calib, args.samples, out, args.reduce_range)
        name = "ORT 7-bit" if args.reduce_range else "ORT"
        print(json.dumps(ort.measure(name, out, args.model, args.eval, args.metric), indent=1))


if __name__ == "__main__":
    main()
