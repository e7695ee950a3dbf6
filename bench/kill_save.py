#!/usr/bin/env python3
"""Kills `onnxpress compress` during its save, again and again, and checks what is left. Started by kill_save.sh.

    kill_save.py ONNXPRESS FOLDER [--kills 100] [--seed 1]

FOLDER/old/model.onnx and FOLDER/new/model.onnx are two models of the same form (single file, or with external data).
Each round puts the saved old model into FOLDER/out, starts saving the new one over it, waits until the program holds
a file in FOLDER/out open for writing (or has made a new one), waits a random part of the time a save takes, and
kills. Rounds whose program finished first do not count. After every kill the visible model must be, byte for byte
and with the data file it refers to, the old one or the new one, and must load. After every tenth kill the save is
repeated over the debris and must succeed.
"""

import argparse
import collections
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import onnx

NAME = "model.onnx"
PIPELINE = "clean-dead"


def command(program, source, target):
    return [program, "compress", str(source), "-o", str(target), "--force", "-p", PIPELINE]


def run(args):
    result = subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"kill_save.py: {' '.join(args)}: exit {result.returncode}: {result.stderr.strip()[-400:]}")


def fingerprint(model):
    """Hash of a model file and of each data file it refers to; raises when a data file is missing."""
    files = [model.name]
    for tensor in onnx.load(model, load_external_data=False).graph.initializer:
        files += [entry.value for entry in tensor.external_data if entry.key == "location"]
    return tuple((name, hashlib.sha256((model.parent / name).read_bytes()).hexdigest()) for name in sorted(set(files)))


def saving(pid, folder, before):
    """Whether the process has begun to write into the folder."""
    if set(os.listdir(folder)) != before:
        return True
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(f"{folder}/"):
                return True
    except OSError:
        pass  # a descriptor closed, or the process ended, while we looked
    return False


def wait_for_save(process, folder, before):
    while process.poll() is None:
        if saving(process.pid, folder, before):
            return True
        time.sleep(0.0002)
    return False


class Rounds:
    def __init__(self, program, folder, seed):
        self.program, self.folder = program, folder
        self.random = random.Random(seed)
        self.new_input = folder / "new" / NAME
        self.out = folder / "out"
        self.saved = {}
        for which in ("old", "new"):
            target = folder / f"saved_{which}"
            target.mkdir()
            run(command(program, folder / which / NAME, target / NAME))
            self.saved[which] = fingerprint(target / NAME)
        if self.saved["old"] == self.saved["new"]:
            sys.exit("kill_save.py: old and new are the same model")

    def start(self):
        """The saved old model in place, the program started over it; returns when its save begins."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.folder / "saved_old", self.out)
        before = set(os.listdir(self.out))
        process = subprocess.Popen(command(self.program, self.new_input, self.out / NAME), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        return process, wait_for_save(process, str(self.out), before)

    def save_seconds(self):
        times = []
        while len(times) < 5:
            process, seen = self.start()
            begin = time.monotonic()
            process.wait()
            if not seen:
                sys.exit("kill_save.py: a save went by unnoticed; use larger models")
            times.append(time.monotonic() - begin)
        return sorted(times)[2]

    def kill_once(self, span):
        """Outcome of one round: 'old', 'new', a complaint, or None when the program was faster."""
        process, seen = self.start()
        time.sleep(self.random.random() * span)
        finished = not seen or process.poll() is not None
        process.kill()
        process.wait()
        return None if finished else self.verdict()

    def verdict(self):
        try:
            left = fingerprint(self.out / NAME)
        except Exception as error:  # whatever parsing half a file raises is the finding
            return f"broken: {type(error).__name__}: {error}"
        for which, good in self.saved.items():
            if left == good:
                break
        else:
            return "neither the old nor the new model"
        loads = subprocess.run([self.program, "inspect", str(self.out / NAME)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, check=False)
        return which if loads.returncode == 0 else f"the {which} model does not load: exit {loads.returncode}"

    def repeat_over_debris(self):
        """Files left beside the model after saving again in the folder a kill left."""
        run(command(self.program, self.new_input, self.out / NAME))
        if fingerprint(self.out / NAME) != self.saved["new"]:
            return None
        return len(os.listdir(self.out)) - len(self.saved["new"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=lambda name: str(pathlib.Path(name).resolve()))
    parser.add_argument("folder", type=lambda name: pathlib.Path(name).resolve())
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rounds = Rounds(args.program, args.folder, args.seed)
    span = rounds.save_seconds()
    outcomes, missed, debris, complaints = collections.Counter(), 0, 0, []
    while sum(outcomes.values()) < args.kills:
        outcome = rounds.kill_once(span)
        if outcome is None:
            missed += 1
            if missed > 10 * args.kills:
                sys.exit("kill_save.py: the program nearly always finishes before the kill; use larger models")
            continue
        outcomes[outcome] += 1
        if outcome in ("old", "new") and sum(outcomes.values()) % 10 == 0:
            extra = rounds.repeat_over_debris()
            if extra is None:
                complaints.append("saving again over the debris gave another model")
            debris = max(debris, extra or 0)
    complaints += [f"{count} times: {outcome}" for outcome, count in outcomes.items() if outcome not in ("old", "new")]
    print(f"{args.folder.name}: {args.kills} kills within a save of {1000 * span:.0f} ms: {outcomes['old']} left the old "
          f"model, {outcomes['new']} the new one; {missed} came too late; at most {debris} stray files after a new save")
    for complaint in complaints:
        print(f"{args.folder.name}: {complaint}")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
