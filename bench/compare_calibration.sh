#!/usr/bin/env bash
# Time and peak memory of calibration, onnxpress against onnxruntime.quantization ("peer"), with few and with many
# images, beside the plain float inference of the same images.
#
#   compare_calibration.sh FOLDER METHOD...        e.g. compare_calibration.sh /tmp/resnet50 minmax entropy percentile
#
# FOLDER has resnet50.onnx and images.npz, as make_resnet50.py writes them. METHOD is what `quant-static --method`
# takes; methods the peer does not have are shown beside "-". Environment: COUNTS="32 256" images; RUNS=3 runs of
# onnxpress and of the float model, of which the fastest counts; JOBS=N threads (all); PEER_GB=12, the address space
# the peer may take; PEER=0 leaves the peer out.
# Times: for onnxpress the whole command, from reading the model to writing the quantized one; for the peer
# quantize_static alone, without Python's start. "per image" is the cost of each further image, where start and end of
# the command do not count.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 2 ] || usage
need_binary
folder=$1
shift
model=$folder/resnet50.onnx data=$folder/images.npz
[ -r "$model" ] && [ -r "$data" ] || die "no resnet50.onnx and images.npz in $folder; run make_resnet50.py $folder"
counts=${COUNTS:-32 256} runs=${RUNS:-3} jobs=${JOBS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The fastest of the lines "SECONDS MB".
fastest() { sort -n | head -1; }

ours() { # METHOD COUNT -> "SECONDS MB"
  for _ in $(seq "$runs"); do
    /usr/bin/time -f "%e %M" -o "$work/time" "$ONNXPRESS" -q quant-static "$model" -o "$work/out.onnx" --force \
      --method "$1" --data "$data" --samples "$2" -j "$jobs" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
    awk '{ printf "%.2f %.0f\n", $1, $2 / 1000 }' "$work/time"
  done | fastest
}

float() { # COUNT -> "SECONDS MB"
  for _ in $(seq "$runs"); do
    python3 "$bench/peer_calibrate.py" "$model" "$data" --method float --samples "$1" --threads "$jobs"
  done | fastest
}

peer() { # METHOD COUNT -> "SECONDS MB", "out of memory" or "-"
  case $1 in minmax | entropy | percentile) ;; *) echo - && return ;; esac
  [ "${PEER:-1}" != 0 ] || { echo - && return; }
  local line
  line=$(python3 "$bench/peer_calibrate.py" "$model" "$data" --method "$1" --samples "$2" --limit-gb "${PEER_GB:-12}" \
    2>"$work/peer.log") || { line="failed" && tail -3 "$work/peer.log" >&2; }
  tail -n 1 <<<"${line:-failed}" # the peer talks on stdout as well
}

{
  for count in $counts; do echo "float $count $(float "$count")"; done
  for method in "$@"; do
    for count in $counts; do
      line=$(ours "$method" "$count") || die "onnxpress failed with method '$method'"
      echo "ours $method $count $line"
      echo "peer $method $count $(peer "$method" "$count")"
    done
  done
} | tee "$work/rows" >&2
awk -v threads="$jobs" -f "$bench/calibration_table.awk" "$work/rows"
