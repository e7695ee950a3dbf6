#!/usr/bin/env bash
# kill -9 while a model is being saved over an old one, at random moments of the save; fails when what is visible
# afterwards is neither the complete old model nor the complete new one. Single file, then external data.
#
#   kill_save.sh SCRATCH [KILLS] [SEED] [MEGABYTES]
#
# KILLS (default 100) is per form, MEGABYTES (default 64) the size of the models.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] && [ $# -le 4 ] || usage
need_binary
kills=${2:-100} seed=${3:-1} megabytes=${4:-64}
mkdir -p "$1"
work=$(mktemp -d "$1/kill_save.XXXXXX")
trap 'rm -rf "$work"' EXIT
gigabytes=$(awk -v m="$megabytes" 'BEGIN { print m / 1000 }')

failed=0
for form in single external; do
  flags=()
  [ "$form" = external ] || flags=(--embedded)
  for which in old new; do
    python3 "$bench/make_large.py" "$work/$form/$which" --name model --gigabytes "$gigabytes" --layers 16 \
      --seed "$([ "$which" = old ] && echo 1 || echo 2)" "${flags[@]}"
  done
  python3 "$bench/kill_save.py" "$ONNXPRESS" "$work/$form" --kills "$kills" --seed "$seed" || failed=1
done
exit "$failed"
