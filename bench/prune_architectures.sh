#!/usr/bin/env bash
# Structured pruning of every exported architecture: what is left, how long planning and proving take, and the proof.
#
#   prune_architectures.sh FOLDER [NAME...]
#
# FOLDER/models gets the networks of make_torchvision.py (those that are there are kept), FOLDER/pruned what is left of
# them, with a report beside each. Further models in FOLDER/models are pruned as well. RATIO=0.3 is the share of units
# that goes. Fails when a network is not pruned and nothing names a blocker, when a proof is missing or above 1e-4, when
# planning takes more than 3 s, or when the result does not run.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] || usage
need_binary
folder=$1
shift
ratio=${RATIO:-0.3}
mkdir -p "$folder/models" "$folder/pruned"
[ -n "${SKIP_EXPORT:-}" ] || python3 "$bench/make_torchvision.py" "$folder/models" "$@"
if [ $# -gt 0 ]; then
  names=("$@")
else
  mapfile -t names < <(cd "$folder/models" && ls -- *.onnx | sed 's/\.onnx$//')
fi

rows=()
for name in "${names[@]}"; do
  passes=("prune-channels{ratio=$ratio}")
  case $name in vit_* | swin_* | *transformer*) passes+=("prune-heads{ratio=$ratio}") ;; esac
  for pass in "${passes[@]}"; do
    row=$folder/pruned/$name.${pass%%\{*}
    "$ONNXPRESS" -q compress "$folder/models/$name.onnx" -p "@clean,$pass" -o "$row.onnx" --force \
      --report "$row.json" >/dev/null 2>"$row.log" || echo "$name: exit code $?" >>"$row.log"
    # Loaded and run once, beside the original, on invented data.
    if ! "$ONNXPRESS" -q compare "$folder/models/$name.onnx" "$row.onnx" --eval random:seed=1 --samples 1 \
      >"$row.compare.txt" 2>&1; then
      mv "$row.compare.txt" "$row.failed.txt"
    fi
    rows+=("$row")
  done
done
python3 "$bench/prune_table.py" "${rows[@]}"
