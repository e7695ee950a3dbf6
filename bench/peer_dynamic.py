#!/usr/bin/env python3
"""Dynamic quantization by onnxruntime.quantization, measured: int8 weights, activations quantized at run time.

    peer_dynamic.py MODEL EVAL.npz [-o OUT.onnx] [--metric top1|perplexity] [--per-channel]

Prints JSON: the row of the quantized model. The peer's own default is one scale a weight; on the language model of
the zoo that is also the better of the two.
"""

import argparse
import json
import os
import tempfile

import ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.registry import IntegerOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process


def quantize(model, out, per_channel):
    with tempfile.TemporaryDirectory() as folder, ort.quiet_stderr():
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        # Not Conv: with int8 weights the peer writes ConvInteger nodes that 1.21 refuses to load.
        quantize_dynamic(prepared, out, per_channel=per_channel, weight_type=QuantType.QInt8,
                         op_types_to_quantize=[op for op in IntegerOpsRegistry if op != "Conv"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("eval")
    parser.add_argument("-o", "--out", help="keep the quantized model here")
    parser.add_argument("--metric", choices=sorted(ort.METRICS), default="top1")
    parser.add_argument("--per-channel", action="store_true", help="one scale a channel instead of one a weight")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or os.path.join(folder, "peer.onnx")
        quantize(args.model, out, args.per_channel)
        print(json.dumps(ort.measure("ORT", out, args.model, args.eval, args.metric), indent=1))


if __name__ == "__main__":
    main()
