#!/usr/bin/env python3
"""Quantizes the models of a zoo folder and compares each with its float original: accuracy, size, speed, and the limits
that a release has to meet. Prints one row a case; fails when a limit is missed.

    quantization.py ZOO [-o FOLDER] [--only TEXT]... [--no-latency]

Needs nothing but Python's standard library and the program (environment: ONNXPRESS). FOLDER keeps models and reports.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

IMAGES = "resize=224x224,scale=1/127.5,mean=1,std=1,color=RGB,layout=NCHW"
CIFAR = ("cifar10_train512.npz", "cifar10_test2k.npz")
KEYWORDS = ("kws_train256.npz", "kws_test1k.npz")
STORIES = ("stories_calib.npz", "stories_tokens.npz")
BEST = "@int8-best"
SLOWDOWN = 1.0  # a quantized model runs no slower than its float original, within what timing can tell
TIMING_NOISE = 0.03

# name, model, (calibration, evaluation), pipeline, limits
CASES = [
    ("mobilenet", "mobilenet_v1_0.25_224.onnx", None, BEST, {"drop": 0.6, "agreement": 85, "sqnr": 15.5}),
    ("mobilenet, all integer", "mobilenet_v1_0.25_224.onnx", None, "@clean,quant-static{placement=all},round-adaptive",
     {"drop": 0.6, "agreement": 85, "sqnr": 15.5}),
    ("mobilenet per tensor", "mobilenet_v1_0.25_224.onnx", None,
     "@clean,equalize-layers,quant-static{per_channel=false},round-adaptive", {"drop": 3}),
    ("stories static", "stories260k.onnx", STORIES, "@int8-cpu", {"perplexity": 4.75, "slowdown": SLOWDOWN}),
    ("stories dynamic", "stories260k.onnx", STORIES, "@int8-dynamic", {"perplexity": 4.645}),
    ("resnet20", "resnet20.onnx", CIFAR, "@int8-cpu", {"drop": 0.1, "slowdown": SLOWDOWN}),
    ("resnet20 W4A8", "resnet20.onnx", CIFAR, "@clean,quant-static{weights=int4},round-adaptive",
     {"drop": 1.0}),
    ("vit", "vit_3_3_8.onnx", ("cifar10_vit_train256.npz", "cifar10_vit_test1k.npz"), "@int8-cpu",
     {"agreement": 97, "slowdown": SLOWDOWN}),
    ("kws ds-cnn", "kws_ds_cnn_m.onnx", KEYWORDS, BEST, {"drop": 0.5, "slowdown": SLOWDOWN}),
    ("kws gru", "kws_gru_m.onnx", KEYWORDS, "@int8-dynamic", {"drop": 0.3, "size": 0.35, "slowdown": SLOWDOWN}),
] + [(name, f"more/{name}.onnx", (f"random:seed=1{inputs}", f"random:seed=2{inputs}"), "@int8-cpu",
      {"slowdown": SLOWDOWN})
     for name, inputs in (("silero_vad", ",input=1x512,state=2x1x128,sr=:16000"), ("ultraface_rfb_320", ""),
                          ("fastestdet", ""), ("yunet_dynamic", ",input=1x3x160x160"), ("super_resolution_op15", ""),
                          ("gtcrn", ""), ("dtln_lstm", ""), ("squeezenet_fp16", ""), ("basic_pitch", ""),
                          ("dncnn", ",input=1x1x64x64"), ("g2pm_bilstm", ",ids=1x24:0..400"),
                          ("brackets_transformer", ""))]


def flags_of(zoo, data):
    if data is None:
        folder = zoo / "imagenette"
        return ["--data", folder / "train", "--eval", folder / "val", "--labels", folder / "labels.txt",
                "--preprocess", IMAGES]
    calibration, evaluation = (name if name.startswith("random:") else zoo / name for name in data)
    return ["--data", calibration, "--eval", evaluation]


def compress(program, zoo, case, folder, latency):
    name, model, data, pipeline, limits = case
    stem = name.replace(" ", "_")
    report = folder / f"{stem}.json"
    command = [program, "-q", "compress", zoo / model, "-o", folder / f"{stem}.onnx", "--force", "-p", pipeline,
               "--no-layers", "--report", report, *flags_of(zoo, data)]
    if not latency:
        command.append("--no-latency")
    if "perplexity" in limits:
        command += ["--metric", "perplexity"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return figures(json.loads(report.read_text()))


def figures(report):
    row = {"size": report["output"]["bytes"] / report["input"]["bytes"]}
    for score in report["comparison"]["scores"]:
        if score["metric"] == "agreement":
            row["agreement"] = score["after"]
        if score["metric"] in ("top1", "perplexity", "top-1"):
            row["before"], row["after"] = score["before"], score["after"]
            row["drop"] = score["before"] - score["after"]
            if score["metric"] == "perplexity":
                row["perplexity"] = score["after"]
    sqnr = [output["sqnr_db"] for output in report["comparison"]["outputs"] if output.get("sqnr_db") is not None]
    if sqnr:
        row["sqnr"] = min(sqnr)
    if report.get("latencies") and report["latencies"].get("speedup"):
        row["speedup"] = report["latencies"]["speedup"]
        row["slowdown"] = 1 / report["latencies"]["speedup"]
    return row


def misses(row, limits, latency):
    if "error" in row:
        return [row["error"]]
    found = []
    for key, limit in limits.items():
        if key == "slowdown" and not latency:
            continue
        value = row.get(key)
        at_least = key in ("agreement", "sqnr")
        slack = TIMING_NOISE if key == "slowdown" else 1e-9
        if value is None or (value < limit - slack if at_least else value > limit + slack):
            shown = "none" if value is None else f"{value:.2f}"
            found.append(f"{key} {shown}, wanted {'>=' if at_least else '<='} {limit}")
    return found


def cell(row, key, form):
    return format(row[key], form) if key in row else "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=pathlib.Path)
    parser.add_argument("-o", "--out", type=pathlib.Path)
    parser.add_argument("--only", action="append", default=[], help="cases whose name holds this text")
    parser.add_argument("--no-latency", action="store_true")
    args = parser.parse_args()
    here = pathlib.Path(__file__).resolve().parent
    program = os.environ.get("ONNXPRESS", here.parent / "build/release/onnxpress")
    scratch = None if args.out else tempfile.TemporaryDirectory()
    folder = args.out or pathlib.Path(scratch.name)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{'case':<22} {'float':>8} {'int':>8} {'agree %':>8} {'SQNR dB':>8} {'file':>6} {'speed':>6}  limits")
    failed = False
    for case in CASES:
        if args.only and not any(text in case[0] for text in args.only):
            continue
        row = compress(program, args.zoo, case, folder, not args.no_latency)
        missed = misses(row, case[4], not args.no_latency)
        failed = failed or bool(missed)
        form = ".4f" if "perplexity" in row else ".2f"
        print(f"{case[0]:<22} {cell(row, 'before', form):>8} {cell(row, 'after', form):>8} "
              f"{cell(row, 'agreement', '.2f'):>8} {cell(row, 'sqnr', '.1f'):>8} {cell(row, 'size', '.3f'):>6} "
              f"{cell(row, 'speedup', '.2f'):>6}  {'; '.join(missed) or 'met'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
