#!/usr/bin/env bash
# Everything that a release promises of pruning, in one table: what is left of models of a zoo, of a language model, of
# exported architectures, of time and of file size, against the limits. Exit status 1 when one is missed.
#
#   pruning.sh ZOO [FOLDER] [-o OUT] [--only TEXT]...
#
# FOLDER keeps the exported architectures (bench/make_torchvision.py needs torchvision); without it they are left out.
# OUT keeps models, reports and what the single scripts say.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] || usage
need_binary
ONNXPRESS=$ONNXPRESS exec python3 "$bench/pruning.py" "$@"
