#!/usr/bin/env python3
"""Prints rows of measure.py, peer_static.py and peer_dynamic.py side by side.

    table.py ROW.json...
"""

import json
import pathlib
import sys


def print_columns(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))))


def main():
    rows = [json.loads(pathlib.Path(name).read_text()) for name in sys.argv[1:]]
    if not rows:
        sys.exit("usage: table.py ROW.json...")
    print_columns([[""] + [row["tool"] for row in rows],
                   ["file bytes"] + [str(row["file_bytes"]) for row in rows],
                   ["file ratio"] + [f"{row['file_ratio']:.3f}" for row in rows],
                   [rows[0]["metric"]] + [f"{row['value']:.4g}" if row["value"] < 10 else f"{row['value']:.2f}" for row in rows],
                   ["integer ops"] + [str(row["integer_ops"]) for row in rows],
                   ["float ops"] + [str(row["float_ops"]) for row in rows]])
    print("\nops of the optimized graph")
    names = sorted({op for row in rows for op in row["optimized_ops"]})
    print_columns([[f"  {op}"] + [str(row["optimized_ops"].get(op, "-")) for row in rows] for op in names])


if __name__ == "__main__":
    main()
