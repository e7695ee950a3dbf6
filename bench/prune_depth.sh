#!/usr/bin/env bash
# Depth pruning: what is left of a model without one of its layers, by criterion, with and without repair.
#
#   prune_depth.sh ZOO [ROWS]
#
# ZOO holds stories260k.onnx, resnet20.onnx and vit_3_3_8.onnx with their samples. ROWS (a regular expression) picks rows
# by name. Fails when a default row is worse than the best of the simpler ones beside it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] && [ $# -le 2 ] || usage
need_binary
zoo=$1 only=${2:-.}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# row MODEL NAME OPTIONS [FLAG...]: prunes, evaluates, prints a line.
row() {
  local model=$1 name=$2 options=$3 data eval metric=top1
  shift 3
  [[ "$model $name" =~ $only ]] || return 0
  case $model in
    stories260k) data=stories_calib.npz eval=stories_tokens.npz metric=perplexity ;;
    resnet20) data=cifar10_train512.npz eval=cifar10_test2k.npz ;;
    vit_3_3_8) data=cifar10_vit_train256.npz eval=cifar10_vit_test1k.npz ;;
  esac
  "$ONNXPRESS" -q compress "$zoo/$model.onnx" -p "prune-layers{$options}" --data "$zoo/$data" --eval "$zoo/$eval" \
    --metric $metric -o "$scratch/out.onnx" --force --report "$scratch/report.json" "$@" >/dev/null \
    2>"$scratch/errors" || { cat "$scratch/errors" >&2; return 1; }
  python3 - "$scratch/report.json" "$model" "$name" "$metric" "$scratch/table" <<'PY'
import json, sys
path, model, name, metric, table = sys.argv[1:]
report = json.load(open(path))
score = next(s for s in report["comparison"]["scores"] if s["metric"] == metric)
weights = report["after"]["weight_bytes"] / report["before"]["weight_bytes"]
seconds = sum(p["seconds"] for p in report["passes"])
print(f"{model:12} {name:28} {metric} {score['before']:7.4f} -> {score['after']:7.4f}   weights {weights:.2f}x   "
      f"time {1 / report['latencies']['speedup']:.2f}x   {seconds:.1f} s", flush=True)
open(table, "a").write(f"{model}\t{name}\t{score['drop']}\n")
PY
}

for model in stories260k vit_3_3_8 resnet20; do
  for seed in 1 2 3; do
    row $model "random, seed $seed, no repair" "criterion=random repair=off" --seed $seed
    row $model "random, seed $seed" "criterion=random" --seed $seed
  done
  for criterion in influence once divergence; do
    row $model "$criterion, no repair" "criterion=$criterion repair=off"
    row $model "$criterion" "criterion=$criterion"
  done
  row $model "default" "count=1"
  row $model "default, two" "count=2"
done

awk -F '\t' '
  $2 == "default" { mine[$1] = $3 }
  $2 ~ /no repair|influence/ && (!($1 in best) || $3 < best[$1]) { best[$1] = $3 }
  END {
    for (model in mine) if (model in best && mine[model] > best[model] + 1e-9) {
      printf "%s: the default loses %.4f, a simpler row %.4f\n", model, mine[model], best[model]; bad = 1
    }
    exit bad
  }' "$scratch/table"
