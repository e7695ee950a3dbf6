#!/usr/bin/env bash
# What unstructured and N:M sparsity cost without training: prune-magnitude, prune-wanda and prune-sparsegpt on the models
# of the zoo. Fails when resnet20 falls below its limits, or a method with data does worse than magnitudes.
#
#   prune_sparse.sh ZOO
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -eq 1 ] || usage
need_binary
zoo=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# score MODEL CALIBRATION EVALUATION METRIC PIPELINE -> "before after sparsity"
score() {
  "$ONNXPRESS" -q compress "$zoo/$1" -o "$work/out.onnx" --force --data "$zoo/$2" --eval "$zoo/$3" --metric "$4" \
    --report "$work/report.json" -p "$5" >/dev/null || die "$5 failed on $1"
  python3 - "$work/report.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
score = report["comparison"]["scores"][0]
before, after = report["before"], report["after"]
print(score["before"], score["after"], 100 * (1 - after["nonzeros"] / after["parameters"]))
PY
}

# row MODEL CALIBRATION EVALUATION METRIC PIPELINE [LIMIT]: prints it; `last` is the score. Limits are of the better side.
row() {
  local before sparsity verdict=''
  read -r before last sparsity < <(score "$1" "$2" "$3" "$4" "$5")
  if [ $# -gt 5 ]; then
    local worse='$1 < $2'
    [ "$4" = perplexity ] && worse='$1 > $2'
    if echo "$last $6" | awk "{ exit !($worse) }"; then verdict="FAILED, limit $6" failed=1; else verdict="limit $6"; fi
  fi
  printf '%-22s %-46s %8.2f -> %8.2f  %5.1f %% zeros  %s\n' "${1%.onnx}" "$5" "$before" "$last" "$sparsity" "$verdict"
}

resnet() { row resnet20.onnx cifar10_train512.npz cifar10_test2k.npz top1 "$@"; }
stories() { row stories260k.onnx stories_calib.npz stories_tokens.npz perplexity "$@"; }
kws() { row kws_ds_cnn_m.onnx kws_train256.npz kws_test1k.npz top1 "$@"; }

echo "model                  pipeline                                          float ->   sparse"
resnet 'prune-magnitude{pattern=2:4 repair=off}'
resnet 'prune-magnitude{pattern=2:4}' "$last"
resnet 'prune-sparsegpt{pattern=2:4}' 86
resnet 'prune-sparsegpt{pattern=4:8}' 86
resnet 'prune-magnitude{sparsity=0.7 repair=off}'
resnet 'prune-magnitude{sparsity=0.7 scope=lamp repair=off}'
resnet 'prune-magnitude{sparsity=0.7 scope=lamp}' "$last"
resnet 'prune-sparsegpt{sparsity=0.7 search=sweep}' 84
resnet 'prune-sparsegpt{sparsity=0.7}' 84
resnet 'prune-sparsegpt{sparsity=0.8 scope=global}'
resnet 'prune-sparsegpt{sparsity=0.9 scope=global}'
for target in 'sparsity=0.5' 'pattern=2:4'; do
  stories "prune-magnitude{$target repair=off}"
  magnitude=$last
  stories "prune-magnitude{$target}" "$magnitude"
  stories "prune-wanda{$target repair=off}" "$magnitude"
  stories "prune-wanda{$target}" "$last"
  stories "prune-sparsegpt{$target}" "$last"
done
kws 'prune-magnitude{sparsity=0.7 repair=off}'
kws 'prune-magnitude{sparsity=0.7}' "$last"
kws 'prune-sparsegpt{sparsity=0.7}' "$last"
exit $failed
