#!/usr/bin/env bash
# Peak memory of quant-dynamic and prune-magnitude on a synthetic model with external data; fails at 1 GB or more.
#
#   large_model.sh SCRATCH [GIGABYTES]
#
# Needs 3.5 times GIGABYTES (default 6) of free disk in SCRATCH. Everything written there is removed again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -eq 1 ] || [ $# -eq 2 ] || usage
need_binary
gigabytes=${2:-6}
limit_kb=$((1000000000 / 1024))
mkdir -p "$1"
free_kb=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
need_kb=$(awk -v g="$gigabytes" 'BEGIN { printf "%d", g * 3.5e9 / 1024 }')
[ "$free_kb" -ge "$need_kb" ] || die "$1 has $free_kb kB free, $need_kb kB are needed"
work=$(mktemp -d "$1/large_model.XXXXXX")
trap 'rm -rf "$work"' EXIT

python3 "$bench/make_large.py" "$work/in" --gigabytes "$gigabytes"
in_bytes=$(du -bs "$work/in" | cut -f1)
failed=0

# run LABEL ARG...: one command on the model, output in $work/out
run() {
  local label=$1 kb start=$EPOCHREALTIME seconds verdict=ok
  shift
  rm -rf "$work/out"
  mkdir "$work/out"
  kb=$(TMPDIR=$work/out peak_kb "$ONNXPRESS" "$@") || die "$label failed"
  seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  "$ONNXPRESS" inspect "$work/out/large.onnx" >/dev/null || die "$label: the result does not load"
  [ "$kb" -lt "$limit_kb" ] || { verdict="OVER $limit_kb kB"; failed=1; }
  echo "$label: peak $kb kB, $seconds s, out/in $(du -bs "$work/out" | awk -v i="$in_bytes" '{ printf "%.3f", $1 / i }'), $verdict"
}

run quant-dynamic quant-dynamic "$work/in/large.onnx" -o "$work/out/large.onnx"
share=$(du -bs "$work/out" | awk -v i="$in_bytes" '{ print ($1 < 0.27 * i) ? "ok" : "too large" }')
[ "$share" = ok ] || { echo "quant-dynamic: the result is $share for int8 weights"; failed=1; }

run prune-magnitude prune-magnitude "$work/in/large.onnx" -o "$work/out/large.onnx" --sparsity 0.5
zeros=$(python3 "$bench/zero_share.py" "$work/out/large.onnx")
echo "prune-magnitude: share of zeros $zeros"
awk -v z="$zeros" 'BEGIN { exit !(z > 0.495 && z < 0.505) }' || { echo "prune-magnitude: not half of the weights"; failed=1; }
exit "$failed"
