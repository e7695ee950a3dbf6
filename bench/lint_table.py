#!/usr/bin/env python3
"""Sums up the JSON that `onnxpress lint --verify --format json` wrote into a folder: right/total per form, every miss.

    lint_table.py FOLDER
"""

import collections
import glob
import json
import os
import sys


def main():
    totals = collections.defaultdict(lambda: [0, 0, 0, 0])
    misses, below = [], []
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.json"))):
        with open(path) as file:
            result = json.load(file)
        check, name = result["check"], os.path.basename(path)[:-len(".json")]
        for key in (name.rsplit(".", 1)[-1], "all"):
            row = totals[key]
            for i, field in enumerate(("right", "nodes", "quantized_right", "quantized_nodes")):
                row[i] += check[field]
        share = check["right"] / max(check["nodes"], 1)
        if share < 0.99:
            below.append(f"{name}: {check['right']}/{check['nodes']}")
        misses += [f"{name}: {m['node']} ({m['op']}): predicted {m['predicted']}; runtime {m['runtime']}"
                   for m in check["misses"]]
    print("\n".join(misses))
    print(f"{'form':14} {'right':>12} {'share':>8}   {'quantized':>12} {'share':>8}")
    for form, (right, nodes, quantized_right, quantized) in sorted(totals.items(), key=lambda e: (e[0] == "all", e[0])):
        print(f"{form:14} {right:>5}/{nodes:<6} {100 * right / max(nodes, 1):7.2f}%   "
              f"{quantized_right:>5}/{quantized:<6} {100 * quantized_right / max(quantized, 1):7.2f}%")
    print("models below 99 %:", ", ".join(below) or "none")


if __name__ == "__main__":
    main()
