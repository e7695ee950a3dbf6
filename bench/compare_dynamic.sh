#!/usr/bin/env bash
# Dynamic quantization: float, onnxpress and onnxruntime.quantization on the same model and data, in one table.
#
#   compare_dynamic.sh MODEL EVAL.npz [top1|perplexity] [FOLDER]
#
# FOLDER keeps the models and rows.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 2 ] && [ $# -le 4 ] || usage
need_binary
model=$1 eval=$2 metric=${3:-top1}
scratch=${4:-$(mktemp -d)}
[ $# -eq 4 ] || trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"

flags=()
[ "$metric" = top1 ] || flags=(--metric "$metric")
"$ONNXPRESS" quant-dynamic "$model" -o "$scratch/ours.onnx" --force --eval "$eval" "${flags[@]}" \
  --report "$scratch/report.json" >"$scratch/ours.txt"
python3 "$bench/measure.py" "$model" --base "$model" --eval "$eval" --metric "$metric" --tool float >"$scratch/float.json"
python3 "$bench/measure.py" "$scratch/ours.onnx" --base "$model" --eval "$eval" --metric "$metric" >"$scratch/ours.json"
python3 "$bench/peer_dynamic.py" "$model" "$eval" --metric "$metric" -o "$scratch/peer.onnx" >"$scratch/peer.json"
python3 "$bench/table.py" "$scratch/float.json" "$scratch/ours.json" "$scratch/peer.json"
