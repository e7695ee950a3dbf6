# Sourced by the scripts of this folder: where the build runs, and how to run something there.
#
# A machine whose apt offers libonnxruntime-dev (Debian 13, Ubuntu 25.04 or newer) builds with its own packages; any
# other Debian or Ubuntu builds in the Debian 13 root that tools/debian13 makes. Inside that root ("in_root") every
# package is there already.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

die() { echo "${0##*/}: $*" >&2; exit 1; }

# The packages named in the given lists of tools/, on one line.
packages() { (cd "$repo/tools" && sed -e 's/#.*//' "$@" | xargs); }

in_root() { [ "${ONNXPRESS_IN_DEBIAN13:-}" = 1 ]; }

candidate() { apt-cache policy "$1" 2>/dev/null | grep -q '^ *Candidate: [^(]'; }

# Exit status 0 when the build uses this machine's own packages.
native() { in_root || candidate libonnxruntime-dev; }

# Prints the packages of tools/packages.txt that are not installed here.
missing_packages() {
  local wanted
  read -ra wanted <<<"$(packages packages.txt)"
  comm -23 <(printf '%s\n' "${wanted[@]}" | sort) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p' | sort)
}

# run CMD...: where the build happens, in the current folder unless that is one of the system's.
run() {
  if native; then
    "$@"
  else
    local bind=()
    case "$PWD/" in
      "$repo"/* | / | /bin/* | /dev/* | /etc/* | /lib*/* | /proc/* | /sbin/* | /sys/* | /usr/* | /var/*) ;;
      *) bind=(--bind "$PWD") ;;
    esac
    "$repo/tools/debian13" "${bind[@]}" -- "$@"
  fi
}

# build PRESET TARGET...: configures when needed, then builds.
build() {
  local preset=$1 log=$repo/build/configure-$1.log
  shift
  mkdir -p "$repo/build"
  if [ ! -f "$repo/build/$preset/build.ninja" ]; then
    echo "configuring build/$preset" >&2
    run env -C "$repo" cmake --preset "$preset" >"$log" || { cat "$log" >&2; die "cmake --preset $preset failed"; }
  fi
  run env -C "$repo" cmake --build --preset "$preset" ${JOBS:+-j "$JOBS"} --target "$@"
}
