#!/usr/bin/env python3
"""Prunes the models of a zoo folder and runs the other benchmarks of pruning: one row a case, each against the limit that
a release has to meet. Fails when a limit is missed.

    pruning.py ZOO [FOLDER] [-o OUT] [--only TEXT]...

Needs what the scripts it starts need, and the program (environment: ONNXPRESS).
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CIFAR = ("resnet20.onnx", "cifar10_train512.npz", "cifar10_test2k.npz", "top1")
STORIES = ("stories260k.onnx", "stories_calib.npz", "stories_tokens.npz", "perplexity")
INNER = "inner=true round_to=4"  # widths of 16 to 64: multiples of 16 would leave no choice

# name, model and data, pipeline, limit (top-1 at least, perplexity at most; None is shown only)
CASES = [
    ("resnet20, 50 % of the inner channels", CIFAR, f"@clean,prune-channels{{ratio=0.5 {INNER}}}", 80),
    ("resnet20, 50 %, group_l2", CIFAR, f"@clean,prune-channels{{ratio=0.5 {INNER} criterion=group_l2}}", 80),
    ("resnet20, 50 %, no repair", CIFAR, f"@clean,prune-channels{{ratio=0.5 {INNER} repair=off}}", None),
    ("resnet20, 25 % of the inner channels", CIFAR, f"@clean,prune-channels{{ratio=0.25 {INNER}}}", 89),
    ("resnet20, 25 %, group_l2", CIFAR, f"@clean,prune-channels{{ratio=0.25 {INNER} criterion=group_l2}}", 89),
    ("resnet20, 25 %, no repair", CIFAR, f"@clean,prune-channels{{ratio=0.25 {INNER} repair=off}}", None),
    ("resnet20, 2:4", CIFAR, "@clean,prune-sparsegpt{pattern=2:4}", 86),
    ("resnet20, 70 % of the weights", CIFAR, "@clean,prune-sparsegpt{sparsity=0.7}", 84),
    ("resnet20, 70 %, stored sparse", CIFAR, "@clean,prune-sparsegpt{sparsity=0.7},store-sparse", 84),
]
# What the default has to be at least as good as: the best of the rows beside it.
BEST_OF = [
    ("stories260k, 1 of 5 layers", STORIES, "@clean,prune-layers{unit=layer count=1}",
     ["@clean,prune-layers{unit=layer count=1 criterion=random repair=off}",
      "@clean,prune-layers{unit=layer count=1 criterion=influence repair=off}",
      "@clean,prune-layers{unit=layer count=1 repair=off}"]),
]


class Bench:
    def __init__(self, args):
        self.zoo, self.folder, self.only = args.zoo, args.folder, args.only
        self.program = os.environ.get("ONNXPRESS", HERE.parent / "build/release/onnxpress")
        self.scratch = None if args.out else tempfile.TemporaryDirectory()
        self.out = args.out or pathlib.Path(self.scratch.name)
        self.out.mkdir(parents=True, exist_ok=True)
        self.failed = False

    def wanted(self, name):
        return not self.only or any(text in name for text in self.only)

    def row(self, name, figures, limit, missed, seconds):
        self.failed = self.failed or bool(missed)
        verdict = f"MISSED: {missed}" if missed else ("met" if limit else "")
        print(f"{name:<40} {figures:<58} {limit:<24} {seconds:>6.0f} s  {verdict}", flush=True)

    def compress(self, case, pipeline, stem):
        """Scores before and after, parameters and MACs left, file; or an error."""
        model, calibration, evaluation, metric = case
        report = self.out / f"{stem}.json"
        command = [self.program, "-q", "compress", self.zoo / model, "-o", self.out / f"{stem}.onnx", "--force", "-p",
                   pipeline, "--data", self.zoo / calibration, "--eval", self.zoo / evaluation, "--metric", metric,
                   "--no-layers", "--no-latency", "--report", report]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
            return {"error": lines[0] if lines else f"exit {done.returncode}"}
        data = json.loads(report.read_text())
        score = next(score for score in data["comparison"]["scores"] if score["metric"].replace("-", "") == metric)
        before, after = data["before"], data["after"]
        return {"before": score["before"], "after": score["after"],
                "parameters": after["parameters"] / before["parameters"],
                "zeros": 1 - after["nonzeros"] / after["parameters"], "macs": after["macs"] / before["macs"],
                "file": data["output"]["bytes"] / data["input"]["bytes"]}


def text_of(figures):
    text = f"{figures['before']:.2f} -> {figures['after']:.2f}, MACs {figures['macs']:.2f}, file {figures['file']:.2f}"
    return text + (f", {100 * figures['zeros']:.0f} % zeros" if figures["zeros"] > 0.01 else "")


def run_cases(bench):
    for index, (name, case, pipeline, limit) in enumerate(CASES):
        if not bench.wanted(name):
            continue
        start = time.monotonic()
        figures = bench.compress(case, pipeline, f"case{index}")
        missed = figures.get("error", "")
        if not missed and limit is not None and figures["after"] < limit:
            missed = f"{figures['after']:.2f}"
        bench.row(name, "-" if "error" in figures else text_of(figures), "" if limit is None else f"top-1 >= {limit}",
                  missed, time.monotonic() - start)


def run_best_of(bench):
    for index, (name, case, pipeline, simpler) in enumerate(BEST_OF):
        if not bench.wanted(name):
            continue
        start = time.monotonic()
        figures = bench.compress(case, pipeline, f"best{index}")
        others = [bench.compress(case, other, f"best{index}_{at}") for at, other in enumerate(simpler)]
        errors = [row["error"] for row in [figures, *others] if "error" in row]
        if errors:
            bench.row(name, "-", "", errors[0], time.monotonic() - start)
            continue
        best = min(row["after"] for row in others)
        missed = "" if figures["after"] <= best + 1e-9 else f"{figures['after']:.4f}"
        bench.row(name, text_of(figures), f"perplexity <= {best:.4f}", missed, time.monotonic() - start)


def script(bench, name, command, summary, limit):
    """Runs one of the other benchmarks: its exit status decides, `summary` picks what to show of its output."""
    if not bench.wanted(name):
        return
    start = time.monotonic()
    environment = {**os.environ, "ONNXPRESS": str(bench.program)}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, env=environment)
    log = bench.out / f"{pathlib.Path(str(command[0] if command[0] != sys.executable else command[1])).stem}.txt"
    log.write_text(done.stdout + done.stderr)
    lines = done.stdout.strip().splitlines() or [""]
    missed = ""
    if done.returncode != 0:
        errors = done.stderr.strip().splitlines()
        missed = errors[-1] if errors else f"exit {done.returncode}"
        if bench.scratch:
            print(done.stdout, end="")
        else:
            missed += f", see {log}"
    bench.row(name, summary(lines), limit, missed, time.monotonic() - start)


def speed_summary(lines):
    found = re.search(r"MACs left ([0-9.]+), time .*: ([0-9.]+) \(", lines[-1])
    return f"MACs {found[1]}, time {found[2]}" if found else lines[-1]


def store_summary(lines):
    row = next((line for line in lines if line.startswith("90 %, 8-bit codebook")), "")
    cells = row.split()
    return f"file {cells[5]}, load {cells[6]} ms, run {cells[8]}" if len(cells) > 8 else lines[-1]


def architecture_summary(lines):
    rows = lines[1:]
    proofs = [float(cell) for row in rows for cell in row.split() if re.fullmatch(r"\d\.\de[+-]\d\d", cell)]
    return f"{len(rows)} runs, proof {max(proofs):.1e} at most" if proofs else f"{len(rows)} runs"


def language_summary(lines):
    found = {}
    for line in lines:
        row = re.match(r"(\w+) +default +perplexity [0-9.]+ -> ([0-9.]+)", line)
        if row:
            found[row[1]] = row[2]
    return ", ".join(f"{kind} 25 %: {value}" for kind, value in found.items()) or lines[-1]


def count_summary(lines):
    return f"{len(lines) - 1} rows"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path, nargs="?", help="exported architectures; left out without it")
    parser.add_argument("-o", "--out", type=pathlib.Path, help="folder that keeps models, reports and logs")
    parser.add_argument("--only", action="append", default=[], help="cases whose name holds this text")
    bench = Bench(parser.parse_args())
    print(f"{'case':<40} {'figures':<58} {'limit':<24} {'time':>8}")
    script(bench, "256-channel network, macs=0.5", [sys.executable, HERE / "prune_speed.py", bench.program],
           speed_summary, "time <= 0.58")
    script(bench, "store-sparse, 90 % of 4.2 M weights", [HERE / "store_sparse.sh"], store_summary,
           "file 0.06, 100 ms, 1.0")
    run_cases(bench)
    run_best_of(bench)
    script(bench, "stories260k, heads and neurons", [HERE / "prune_language.sh", bench.zoo], language_summary,
           "the best simpler row")
    script(bench, "unstructured, all methods", [HERE / "prune_sparse.sh", bench.zoo], count_summary, "2:4 86, 70 % 84")
    if bench.folder:
        script(bench, "architectures, ratio=0.3", [HERE / "prune_architectures.sh", bench.folder],
               architecture_summary, "proof 1e-4, 3 s, runs")
    sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
