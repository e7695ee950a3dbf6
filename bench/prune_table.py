#!/usr/bin/env python3
"""The table of prune_architectures.sh, from the reports of its runs; exit code 1 when a line misses what it must reach.

    prune_table.py RUN...        RUN.json is the report, RUN.failed.txt says why the result does not run
"""

import json
import pathlib
import re
import sys

TOLERANCE = 1e-4
SECONDS = 3.0  # of the pass, proof included


def ratio(after, before):
    return after / before if before else 1.0


def row_of(run):
    """Cells of the row, and what it misses."""
    name, _, command = pathlib.Path(run).name.rpartition(".")
    report = pathlib.Path(run + ".json")
    if not report.exists():
        log = pathlib.Path(run + ".log")
        lines = log.read_text().strip().splitlines() if log.exists() else []
        return [name, command, "-", "-", "-", "-", "-"], ["no report: " + (lines[-1] if lines else "no log")]
    data = json.loads(report.read_text())
    done = next(record for record in data["passes"] if record["pass"].split("{")[0] == command)
    notes = [entry if isinstance(entry, str) else entry.get("text", "") for entry in data["notes"]]
    errors = [float(found[1]) for note in notes if (found := re.search(r"differ by ([0-9.e+-]+)", note))]
    blocked = [entry for entry in data["skipped"] if entry.get("pass", command) == command]
    missed = []
    if not done["changed"] and not blocked:
        missed.append("nothing pruned, and no blocker named")
    if done["changed"]:
        if not errors:
            missed.append("no proof: " + "; ".join(note for note in notes if "proven" in note))
        elif max(errors) > TOLERANCE:
            missed.append(f"proof {max(errors):.1e}")
    for warning in data["warnings"]:
        missed.append(warning if isinstance(warning, str) else warning.get("text", str(warning)))
    if done["seconds"] > SECONDS:
        missed.append(f"{done['seconds']:.1f} s")
    if pathlib.Path(run + ".failed.txt").exists():
        missed.append("does not run")
    before, after = data["before"], data["after"]
    cells = [name, command, f"{ratio(after['parameters'], before['parameters']):.3f}",
             f"{ratio(after['macs'], before['macs']):.3f}", f"{done['seconds']:.2f}",
             f"{max(errors):.1e}" if errors else "-", str(len(blocked))]
    return cells, missed


def main():
    rows = [["network", "pass", "parameters", "MACs", "seconds", "proof", "skipped", ""]]
    failed = False
    for run in sys.argv[1:]:
        cells, missed = row_of(run)
        failed = failed or bool(missed)
        rows.append(cells + ["; ".join(missed)])
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
