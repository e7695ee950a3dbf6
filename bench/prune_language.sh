#!/usr/bin/env bash
# Structured pruning of a language model: perplexity by criterion, with and without repair, one row per command.
#
#   prune_language.sh ZOO [ROWS]
#
# ZOO holds stories260k.onnx, stories_calib.npz and stories_tokens.npz. ROWS (a regular expression) picks rows by name.
# Fails when a default row is worse than the best of the simpler ones beside it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] && [ $# -le 2 ] || usage
need_binary
zoo=$1 only=${2:-.}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# row GROUP NAME PIPELINE [FLAG...]: prunes, evaluates, prints a line.
row() {
  local group=$1 name=$2 pipeline=$3
  shift 3
  [[ "$group $name" =~ $only ]] || return 0
  "$ONNXPRESS" -q compress "$zoo/stories260k.onnx" -p "@clean,$pipeline" --data "$zoo/stories_calib.npz" \
    --eval "$zoo/stories_tokens.npz" --metric perplexity -o "$scratch/out.onnx" --force \
    --report "$scratch/report.json" "$@" >/dev/null 2>"$scratch/errors" || { cat "$scratch/errors" >&2; return 1; }
  python3 - "$scratch/report.json" "$group" "$name" "$scratch/table" <<'PY'
import json, sys
report, group, name, table = sys.argv[1:]
report = json.load(open(report))
score = next(s for s in report["comparison"]["scores"] if s["metric"] == "perplexity")
weights = report["after"]["parameters"] / report["before"]["parameters"]
seconds = sum(p["seconds"] for p in report["passes"])
print(f"{group:8} {name:36} perplexity {score['before']:.4f} -> {score['after']:.4f}   "
      f"parameters {weights:.3f}   {seconds:.1f} s", flush=True)
open(table, "a").write(f"{group}\t{name}\t{score['after']}\n")
PY
}

for kind in heads neurons; do
  prune="prune-$kind{ratio=0.25"
  for seed in 0 1 2; do row $kind "random, seed $seed" "$prune criterion=random repair=off}" --seed $seed; done
  for criterion in l2 group_l2 activation obs loss; do
    [ $kind$criterion != neuronsloss ] || continue  # one pass over the samples for each of 860 neurons
    row $kind "$criterion, no repair" "$prune criterion=$criterion repair=off}"
    row $kind "$criterion" "$prune criterion=$criterion}"
  done
  row $kind "default" "$prune}"
done

awk -F '\t' '
  $2 == "default" { mine[$1] = $3 }
  $2 ~ /random|no repair|^l2/ && (!($1 in best) || $3 < best[$1]) { best[$1] = $3 }
  END {
    for (group in mine) if (mine[group] > best[group] + 1e-9) {
      printf "%s: the default gives %.4f, a simpler row %.4f\n", group, mine[group], best[group]; bad = 1
    }
    exit bad
  }' "$scratch/table"
