#!/usr/bin/env bash
# Every model of the ONNX conformance suite: untouched re-save, then clean-* and fold-* with unchanged outputs.
#
#   conformance.sh ZOO/conformance [--json FILE] [--limit N] [--match TEXT] [--opset N]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 1 ] || usage
need_binary
exec python3 "$bench/conformance.py" "$ONNXPRESS" "$@"
