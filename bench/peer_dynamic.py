#!/usr/bin/env python3
"""Dynamic quantization by onnxruntime.quantization, measured: int8 weights per channel, activations at run time.

    peer_dynamic.py MODEL EVAL.npz [-o OUT.onnx] [--metric top1|perplexity] [--per-tensor]

Prints JSON: the row of the quantized model.
"""

import argparse
import json
import os
import tempfile

import ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process


def quantize(model, out, per_channel):
    with tempfile.TemporaryDirectory() as folder, ort.quiet_stderr():
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        # Not Conv: with int8 weights the peer writes ConvInteger nodes that 1.21 refuses to load.
        quantize_dynamic(prepared, out, per_channel=per_channel, weight_type=QuantType.QInt8,
                         op_types_to_quantize=["MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("eval")
    parser.add_argument("-o", "--out", help="keep the quantized model here")
    parser.add_argument("--metric", choices=sorted(ort.METRICS), default="top1")
    parser.add_argument("--per-tensor", action="store_true", help="one scale a weight instead of one a channel")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or os.path.join(folder, "peer.onnx")
        quantize(args.model, out, not args.per_tensor)
        print(json.dumps(ort.measure("onnxruntime.quantization", out, args.model, args.eval, args.metric), indent=1))


if __name__ == "__main__":
    main()
