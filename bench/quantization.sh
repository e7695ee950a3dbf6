#!/usr/bin/env bash
# Quantizes the models of a zoo folder and holds accuracy, size and speed against the limits of a release: one row a
# case, exit status 1 when a limit is missed.
#
#   quantization.sh ZOO [-o FOLDER] [--only TEXT]... [--no-latency]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] || usage
need_binary
ONNXPRESS=$ONNXPRESS exec python3 "$bench/quantization.py" "$@"
