#!/usr/bin/env python3
"""Runs onnxpress over the ONNX conformance suite. Started by conformance.sh.

    conformance.py ONNXPRESS FOLDER [--json FILE] [--limit N] [--match TEXT] [--opset N]

For every FOLDER/**/model.onnx:
  resave   `compress -p ''` must give the canonical serialization of the file, byte for byte
  passes   `compress -p 'clean-…,fold-…'` must succeed, and where ONNX Runtime runs the original on the inputs of
           test_data_set_0, it must run the result with equal outputs (absolute and relative tolerance 1e-4)
With --opset N instead of both, for every model of an older opset:
  opset    `compress -p convert-opset{to=N}` must succeed; the result is compared in the same way, or left as it was with
           a reason (refused, which is no exception)
Prints counts and every exception with its reason; exit 1 when there is one. A model that is not compared (the runtime
refuses or crashes on the original, the inputs cannot be fed from Python, the original differs from run to run) is
listed with its reason too, but is no exception.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import ort
from onnx import numpy_helper

PIPELINE = "clean-constants,clean-identity,clean-duplicates,fold-constants,fold-batchnorm,clean-dead"
TOLERANCE = 1e-4
TOOL_SECONDS = 120
RUNTIME_SECONDS = 120
# Types numpy has no counterpart for: fed as raw bits with the ONNX type named.
RAW_TYPES = {onnx.TensorProto.BFLOAT16: np.uint16, onnx.TensorProto.FLOAT8E4M3FN: np.uint8,
             onnx.TensorProto.FLOAT8E4M3FNUZ: np.uint8, onnx.TensorProto.FLOAT8E5M2: np.uint8,
             onnx.TensorProto.FLOAT8E5M2FNUZ: np.uint8}


class CannotFeed(Exception):
    pass


def run_tool(program, model, out, pipeline):
    """None, or why it failed."""
    out.unlink(missing_ok=True)
    args = [program, "compress", str(model), "-o", str(out), "--force", "-p", pipeline]
    try:
        result = subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
                                timeout=TOOL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {TOOL_SECONDS} s"
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        return f"exit {result.returncode}: {lines[-1][:300] if lines else 'no message'}"
    return None if out.exists() else "exit 0 but no output"


def check_resave(program, model, out):
    failure = run_tool(program, model, out, "")
    if failure:
        return failure
    proto = onnx.ModelProto()
    proto.ParseFromString(model.read_bytes())
    canonical = proto.SerializeToString(deterministic=True)
    saved = out.read_bytes()
    if saved == canonical:
        return None
    at = next((i for i, (a, b) in enumerate(zip(saved, canonical)) if a != b), min(len(saved), len(canonical)))
    return f"differs from the canonical form at byte {at} ({len(saved)} bytes, canonical {len(canonical)})"


def read_tensor(data):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(data)
    if tensor.data_type in RAW_TYPES:
        raw = np.frombuffer(tensor.raw_data, RAW_TYPES[tensor.data_type]) if tensor.HasField("raw_data") else \
            np.array(tensor.int32_data, RAW_TYPES[tensor.data_type])
        return ort.onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw.reshape(tensor.dims), tensor.data_type)
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        raise CannotFeed("4-bit input")
    if tensor.data_type not in onnx.TensorProto.DataType.values():
        raise CannotFeed(f"input type {tensor.data_type} is newer than this onnx package")
    return numpy_helper.to_array(tensor)


def read_value(data, type_proto):
    """One input_K.pb as what the runtime takes, by the type of the graph input."""
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        sequence = onnx.SequenceProto()
        sequence.ParseFromString(data)
        return numpy_helper.to_list(sequence)
    if kind == "optional_type":
        optional = onnx.OptionalProto()
        optional.ParseFromString(data)
        return numpy_helper.to_optional(optional)
    if kind == "tensor_type":
        return read_tensor(data)
    raise CannotFeed(f"input of kind {kind}")


def read_feed(model, proto):
    folder = model.parent / "test_data_set_0"
    held = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in held]
    files = [folder / f"input_{i}.pb" for i in range(len(inputs))]
    if not all(file.exists() for file in files):
        raise CannotFeed("fewer input files than inputs")
    return {value.name: read_value(file.read_bytes(), value.type) for value, file in zip(inputs, files)}


def run_model(path, feed):
    run = ort.session(path)
    if any(isinstance(value, ort.onnxruntime.OrtValue) for value in feed.values()):
        feed = {name: value if isinstance(value, ort.onnxruntime.OrtValue)
                else ort.onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()}
        return [value.numpy() for value in run.run_with_ort_values(None, feed)]
    return run.run(None, feed)


def difference(a, b, where="output"):
    """None when equal within the tolerance, else what differs. Values are arrays, lists, maps or None."""
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} became {type(b).__name__}"
    if isinstance(a, list):
        if len(a) != len(b):
            return f"{where}: {len(a)} elements became {len(b)}"
        return next((d for i, (x, y) in enumerate(zip(a, b)) if (d := difference(x, y, f"{where} {i}"))), None)
    if isinstance(a, dict):
        return None if a == b else f"{where}: maps differ"
    if not isinstance(a, np.ndarray):
        return None if a == b or (a != a and b != b) else f"{where}: {a} became {b}"
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{where}: {a.dtype}{list(a.shape)} became {b.dtype}{list(b.shape)}"
    if a.dtype.kind not in "fc":
        return None if np.array_equal(a, b) else f"{where}: values differ"
    if np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        return None
    worst = np.nanmax(np.abs(a.astype(np.complex128) - b.astype(np.complex128)))
    return f"{where}: largest difference {worst:.3g}"


def compare(model, result):
    """(kind, reason) with kind one of 'equal', 'not compared', 'failed'. Called in a child process."""
    proto = onnx.load(model)
    try:
        feed = read_feed(model, proto)
    except Exception as error:  # any unreadable input means there is nothing to compare
        return "not compared", f"inputs cannot be fed: {error}"
    try:
        expected = run_model(model, feed)
    except Exception as error:  # the bindings raise many unrelated types
        return "not compared", f"the runtime refuses the original: {first_line(error)}"
    if difference(expected, run_model(model, feed)):
        return "not compared", "the original differs from run to run"
    try:
        got = run_model(result, feed)
    except Exception as error:
        return "failed", f"the runtime refuses the result: {first_line(error)}"
    found = difference(expected, got)
    return ("failed", found) if found else ("equal", "")


def first_line(error):
    """The message without the paths and C++ signatures that would make every one unique."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", lines[0])
    text = re.sub(r"Load model from \S+ failed: ?", "", text)
    text = re.sub(r"\S+\.(cc|h):\d+ .*?\) (\[with .*?\] )?(?=\S)", "", text)
    return text[:300]


def read_until_end(descriptor, seconds):
    """Everything written to the pipe, or None when its writer is not done in time."""
    chunks = []
    while select.select([descriptor], [], [], seconds)[0]:
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    return None


def in_child(function, *args):
    """function(*args) in a forked process, so that a crash of the runtime costs one model."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            answer = function(*args)
        except BaseException as error:
            answer = ("failed", f"comparison raised {type(error).__name__}: {first_line(error)}")
        os.write(write_end, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_end)
    answer = read_until_end(read_end, RUNTIME_SECONDS)
    os.close(read_end)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer is None:
        return "crashed", f"no end after {RUNTIME_SECONDS} s"
    if not answer:
        return "crashed", f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {status >> 8}"
    return tuple(json.loads(answer))


def runs_alone(model):
    """Whether the original by itself survives in the runtime: ('equal', '') when it does."""
    return in_child(compare, model, model)[0] != "crashed"


def default_opset(proto):
    """0 where it imports others only, 1 in files older than imports."""
    found = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return found if proto.opset_import else 1


def check_opset(program, model, out, opset):
    kind, reason = check_passes(program, model, out, f"convert-opset{{to={opset}}}")
    if kind == "failed" or default_opset(onnx.load(out)) == opset:
        return kind, reason
    report = subprocess.run([program, "compress", str(model), "-o", str(out), "--force", "-p",
                             f"convert-opset{{to={opset}}}"], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"cannot be converted to \d+: (.*)", report.stderr)
    return "refused", re.sub(r"node '[^']*' ", "", found.group(1)) if found else "no reason given"


def check_passes(program, model, out, pipeline):
    failure = run_tool(program, model, out, pipeline)
    if failure:
        return "failed", failure
    kind, reason = in_child(compare, model, out)
    if kind != "crashed":
        return kind, reason
    if runs_alone(model):
        return "failed", f"the runtime crashes on the result: {reason}"
    return "not compared", f"the runtime crashes on the original: {reason}"


def print_group(title, entries):
    """Names under each reason, the most frequent reason first."""
    by_reason = collections.defaultdict(list)
    for name, reason in entries:
        by_reason[reason].append(name)
    print(f"\n{title}: {len(entries)}")
    for reason, names in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"  {reason}")
        for name in names:
            print(f"    {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=lambda name: str(pathlib.Path(name).resolve()))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, help="write every model's outcome here")
    parser.add_argument("--limit", type=int, help="the first N models only")
    parser.add_argument("--opset", type=int, help="check convert-opset{to=N} instead")
    parser.add_argument("--match", default="", help="only models whose folder contains this")
    args = parser.parse_args()
    models = [m for m in sorted(args.folder.glob("**/model.onnx")) if args.match in str(m.parent.relative_to(args.folder))]
    models = models[:args.limit]
    if not models:
        sys.exit(f"conformance.py: no model.onnx in {args.folder}")

    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "out.onnx"
        for done, model in enumerate(models, 1):
            if args.opset:
                if not 0 < default_opset(onnx.load(model)) < args.opset:
                    continue
                resave = None
                kind, reason = check_opset(args.program, model, out, args.opset)
            else:
                resave = check_resave(args.program, model, out)
                kind, reason = check_passes(args.program, model, out, PIPELINE)
            outcomes.append({"model": str(model.parent.relative_to(args.folder)), "resave": resave or "identical",
                             "passes": kind, "reason": reason})
            if done % 200 == 0:
                print(f"{done} of {len(models)}", file=sys.stderr, flush=True)

    if args.json:
        args.json.write_text(json.dumps(outcomes, indent=1) + "\n")
    bad_resave = [(o["model"], o["resave"]) for o in outcomes if o["resave"] != "identical"]
    groups = {kind: [(o["model"], o["reason"]) for o in outcomes if o["passes"] == kind]
              for kind in ("equal", "refused", "not compared", "failed")}
    if args.opset:
        print(f"{len(outcomes)} models older than opset {args.opset}: ", end="")
    else:
        print(f"{len(models)} models: {len(models) - len(bad_resave)} re-saved byte for byte, {len(bad_resave)} not; "
              "passes: ", end="")
    print(", ".join(f"{len(entries)} {kind}" for kind, entries in groups.items() if entries or kind != "refused"))
    print_group("re-save exceptions", bad_resave)
    print_group("pass exceptions", groups["failed"])
    print_group("refused", groups["refused"])
    print_group("not compared", groups["not compared"])
    sys.exit(1 if bad_resave or groups["failed"] else 0)


if __name__ == "__main__":
    main()
