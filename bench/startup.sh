#!/usr/bin/env bash
# Wall time of `onnxpress --version`, median of 20 runs; fails at 50 ms or more.
#
#   startup.sh [RUNS]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -le 1 ] || usage
need_binary
runs=${1:-20}
"$ONNXPRESS" --version >/dev/null  # not timed: the file cache is cold

for ((i = 0; i < runs; i++)); do
  start=${EPOCHREALTIME/./}
  "$ONNXPRESS" --version >/dev/null
  end=${EPOCHREALTIME/./}
  echo $((end - start))
done | sort -n | awk -v n="$runs" '
  { t[NR] = $1 / 1000 }
  END {
    median = (t[int((n + 1) / 2)] + t[int(n / 2) + 1]) / 2
    printf "--version: median %.1f ms, min %.1f, max %.1f, %d runs\n", median, t[1], t[n], n
    exit !(median < 50)
  }'
