# Sourced by the scripts of this folder.
bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
ONNXPRESS=${ONNXPRESS:-$bench/../build/release/onnxpress}

die() { echo "${0##*/}: $*" >&2; exit 1; }

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

need_binary() {
  [ -x "$ONNXPRESS" ] || die "no program at $ONNXPRESS; build it, or set ONNXPRESS"
}

# Peak resident memory in kB of a command, whose own output goes to stderr.
peak_kb() {
  local log
  log=$(mktemp)
  if ! /usr/bin/time -v -o "$log" "$@" >&2; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  awk -F': ' '/Maximum resident set size/ { print $2 }' "$log"
  rm -f "$log"
}
