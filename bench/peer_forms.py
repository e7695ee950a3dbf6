#!/usr/bin/env python3
"""A model quantized by onnxruntime.quantization in several forms, to hold onnxpress lint against.

    peer_forms.py MODEL FOLDER [--calib CALIB.npz]

Writes FOLDER/NAME.{qdq,qdq_s8,qdq_tensor,qoperator,dynamic}.onnx, those that the peer manages, and prints what it does
not. Without --calib the ranges come from random inputs: only the form of the graph matters here.
"""

import argparse
import os
import sys
import tempfile

import numpy as np

import ort
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic,
                                      quantize_static)
from onnxruntime.quantization.registry import IntegerOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(double)": np.float64}


class Reader(CalibrationDataReader):
    def __init__(self, model, calib, samples=2):
        inputs = ort.session(model).get_inputs()
        if calib:
            data, _ = ort.load_npz(calib)
            feeds = [feed for _, feed in ort.batches(data, inputs[0].shape[0], 1)][:samples]
        else:
            rng = np.random.default_rng(1)
            feeds = [{i.name: self.random(rng, i) for i in inputs} for _ in range(samples)]
        self.feeds = iter(feeds)

    @staticmethod
    def random(rng, value):
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in value.shape]
        dtype = TYPES[value.type]
        if np.issubdtype(dtype, np.floating):
            return rng.random(shape).astype(dtype)
        return np.ones(shape, dtype) if value.name != "sr" else np.array(16000, dtype)

    def get_next(self):
        return next(self.feeds, None)


def forms(prepared, calib):
    def static(**options):
        return lambda out: quantize_static(prepared, out, Reader(prepared, calib), **options)

    qdq = {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": QuantType.QUInt8,
           "weight_type": QuantType.QInt8}
    return {
        "qdq": static(**qdq),
        "qdq_s8": static(**qdq | {"activation_type": QuantType.QInt8}),
        "qdq_tensor": static(**qdq | {"per_channel": False, "weight_type": QuantType.QUInt8}),
        "qoperator": static(**qdq | {"quant_format": QuantFormat.QOperator}),
        "dynamic": lambda out: quantize_dynamic(prepared, out, weight_type=QuantType.QInt8,
                                                op_types_to_quantize=[op for op in IntegerOpsRegistry if op != "Conv"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--calib")
    args = parser.parse_args()
    name = os.path.splitext(os.path.basename(args.model))[0]
    with tempfile.TemporaryDirectory() as folder:
        prepared = os.path.join(folder, "prepared.onnx")
        with ort.quiet_stderr():
            try:
                quant_pre_process(args.model, prepared, skip_symbolic_shape=True)
            except Exception:
                prepared = args.model
        for form, make in forms(prepared, args.calib).items():
            out = os.path.join(args.folder, f"{name}.{form}.onnx")
            try:
                with ort.quiet_stderr():
                    make(out)
                    ort.session(out)
            except Exception as error:
                if os.path.exists(out):
                    os.remove(out)
                print(f"{name}: the peer has no {form}: {str(error).splitlines()[0][:100]}", file=sys.stderr)


if __name__ == "__main__":
    main()
