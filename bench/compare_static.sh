#!/usr/bin/env bash
# Static quantization: float, onnxpress and onnxruntime.quantization (ORT; also with its reduce_range, for processors
# without VNNI) on the same model and data, in one table.
#
#   compare_static.sh MODEL CALIB.npz EVAL.npz [FOLDER]
#
# FOLDER keeps the models and rows. PIPELINE='fold-batchnorm,quant-static' uses `compress -p` instead of the plain
# quant-static subcommand.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -eq 3 ] || [ $# -eq 4 ] || usage
need_binary
model=$1 calib=$2 eval=$3
scratch=${4:-$(mktemp -d)}
[ $# -eq 4 ] || trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"

if [ -n "${PIPELINE:-}" ]; then
  command=(compress "$model" -p "$PIPELINE")
else
  command=(quant-static "$model")
fi
"$ONNXPRESS" "${command[@]}" -o "$scratch/ours.onnx" --force --data "$calib" --eval "$eval" \
  --report "$scratch/report.json" >"$scratch/ours.txt"
python3 "$bench/measure.py" "$model" --base "$model" --eval "$eval" --tool float >"$scratch/float.json"
python3 "$bench/measure.py" "$scratch/ours.onnx" --base "$model" --eval "$eval" >"$scratch/ours.json"
python3 "$bench/peer_static.py" "$model" "$calib" "$eval" -o "$scratch/peer.onnx" >"$scratch/peer.json"
python3 "$bench/peer_static.py" "$model" "$calib" "$eval" -o "$scratch/peer7.onnx" --reduce-range >"$scratch/peer7.json"
python3 "$bench/table.py" "$scratch"/{float,ours,peer,peer7}.json
grep -qw -e avx512_vnni -e avx_vnni -e avxvnni /proc/cpuinfo ||
  echo "This processor has no VNNI: its kernels saturate on 8-bit weights, so the fair peer is the 7-bit one."
