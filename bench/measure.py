#!/usr/bin/env python3
"""One model's row for a comparison, as JSON: file ratio, metric, and the ops of ONNX Runtime's optimized graph.

    measure.py MODEL --base FLOAT --eval EVAL.npz [--metric top1|perplexity] [--tool NAME]
"""

import argparse
import json

import ort


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--base", required=True, help="the float model the ratio is against")
    parser.add_argument("--eval", required=True, help="npz of inputs (and labels)")
    parser.add_argument("--metric", choices=sorted(ort.METRICS), default="top1")
    parser.add_argument("--tool", default="onnxpress", help="name of the row")
    args = parser.parse_args()
    print(json.dumps(ort.measure(args.tool, args.model, args.base, args.eval, args.metric), indent=1))


if __name__ == "__main__":
    main()
