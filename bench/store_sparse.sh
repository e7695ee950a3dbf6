#!/usr/bin/env bash
# What store-sparse makes of one MatMul of 2048 x 2048 weights, 80 and 90 % of them zero: file, time to load and to run
# against the dense model, outputs bit by bit. Exit status 1 when a limit of the release is missed.
#
#   store_sparse.sh [-o FOLDER] [--runs N]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_binary
ONNXPRESS=$ONNXPRESS exec python3 "$bench/store_sparse.py" "$@"
