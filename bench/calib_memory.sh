#!/usr/bin/env bash
# Peak memory of quant-static with few and with many calibration samples; fails when they differ by more than 10 %.
#
#   calib_memory.sh MODEL CALIB.npz [FEW] [MANY]
#
# FEW and MANY default to 32 and 512; CALIB must hold MANY samples. Each is the median of three runs.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 2 ] && [ $# -le 4 ] || usage
need_binary
model=$1 data=$2 few=${3:-32} many=${4:-512}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

median_kb() {
  for _ in 1 2 3; do
    peak_kb "$ONNXPRESS" quant-static "$model" -o "$work/out.onnx" --force --data "$data" --samples "$1" || return 1
  done | sort -n | sed -n 2p
}

few_kb=$(median_kb "$few")
many_kb=$(median_kb "$many")
[ -n "$few_kb" ] && [ -n "$many_kb" ] || die "quant-static failed"
echo "$few samples: peak $few_kb kB; $many samples: peak $many_kb kB"
awk -v a="$few_kb" -v b="$many_kb" 'BEGIN { r = b / a; printf "ratio %.3f\n", r; exit !(r <= 1.10 && r >= 0.90) }'
