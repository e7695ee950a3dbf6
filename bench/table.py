#!/usr/bin/env python3
"""Prints rows of measure.py, peer_static.py and peer_dynamic.py side by side.

    table.py ROW.json...
"""

import json
import pathlib
import sys


def shown(value):
    return f"{value:.4f}" if value < 10 else f"{value:.2f}"


def main():
    rows = [json.loads(pathlib.Path(name).read_text()) for name in sys.argv[1:]]
    if not rows:
        sys.exit("usage: table.py ROW.json...")
    lines = [[""] + [row["tool"] for row in rows],
             ["file bytes"] + [str(row["file_bytes"]) for row in rows],
             ["file ratio"] + [f"{row['file_ratio']:.3f}" for row in rows],
             [rows[0]["metric"]] + [shown(row["value"]) for row in rows],
             ["integer ops"] + [str(row["integer_ops"]) for row in rows],
             ["float ops"] + [str(row["float_ops"]) for row in rows],
             ["ops of the optimized graph"] + [""] * len(rows)]
    for op in sorted({op for row in rows for op in row["optimized_ops"]}):
        lines.append([f"  {op}"] + [str(row["optimized_ops"].get(op, "-")) for row in rows])
    widths = [max(len(line[i]) for line in lines) for i in range(len(rows) + 1)]
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    main()
