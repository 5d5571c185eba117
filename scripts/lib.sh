# shellcheck shell=bash
# What scripts/demo, scripts/test and .ci/run share: stages with a line each, system packages, the virtual environment,
# the builds. Everything is skipped where nothing has changed since the last time. Source it, do not run it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
logs=$root/build/logs
cd "$root"
mkdir -p "$logs"
export PATH=$venv/bin:$PATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

# A compiler cache is used where there is one, also between checkouts.
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
fi
# The files of Apache parquet-testing, for the tests that read them; the tests skip, visibly, without.
if [[ -z ${PENSTOCK_PARQUET_TESTING:-} && -d $root/../shared/corpora/parquet-testing ]]; then
  export PENSTOCK_PARQUET_TESTING=$root/../shared/corpora
fi

stage_number=0
stage_count=0 # Set by the script that sources this one.

# stage "what it does" command [arguments]: runs it with its output in a log, which is shown if it fails.
stage() {
  local what=$1 log start
  shift
  stage_number=$((stage_number + 1))
  log=$logs/$(basename "$0")-$stage_number-$1.log
  start=$SECONDS
  printf '[%d/%d] %s ... ' "$stage_number" "$stage_count" "$what"
  # In a process of its own, so that `set -e` holds within it.
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1 </dev/null
  local code=$?
  set -e
  if [[ $code -ne 0 ]]; then
    printf 'FAILED after %d s\n' $((SECONDS - start))
    cat "$log"
    printf '\nThe stage "%s" failed; its output is above and in %s\n' "$what" "${log#"$root/"}"
    exit 1
  fi
  printf '%s\n' "$(stage_result "$log" $((SECONDS - start)))"
}

# A stage may say what came out with a last line that starts with "result: ".
stage_result() {
  local result
  result=$(tail -n 1 "$1" | sed -n 's/^result: //p')
  printf '%s%d s' "${result:+$result, }" "$2"
}

# first_time FILE MINUTES: a word of warning where FILE is not there yet.
first_time() {
  [[ -e $1 ]] || printf ' (the first time: about %s)' "$2"
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

has_package() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# Installs those of the named Debian packages that are missing.
install_packages() {
  local missing=() package
  for package in "$@"; do
    has_package "$package" || missing+=("$package")
  done
  if [[ ${#missing[@]} -eq 0 ]]; then
    echo "result: all there"
    return
  fi
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update && as_root apt-get install -y --no-install-recommends "${missing[@]}" &&
    echo "result: ${missing[*]}"
}

system_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "result: no Debian here, so not looked after (needed: g++ 12, Python with headers and venv, libjpeg-turbo, libpng, GoogleTest)"
    return
  fi
  local wanted=("$@" libjpeg-dev libpng-dev)
  command -v g++ >/dev/null || wanted+=(g++)
  python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
  python3 - <<'PY' || wanted+=(python3-dev)
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))
PY
  install_packages "${wanted[@]}"
}

# Runs the command unless the stamp carries this sum: once_for STAMP SUM command [arguments]
once_for() {
  local stamp=$1 sum=$2
  shift 2
  if [[ -f $stamp && $(<"$stamp") == "$sum" ]]; then
    echo "result: unchanged"
    return
  fi
  rm -f "$stamp"
  "$@"
  mkdir -p "$(dirname "$stamp")"
  echo "$sum" >"$stamp"
}

# environment FILE: the virtual environment with what FILE of scripts/ asks for.
environment() {
  "$venv/bin/python" -c 'import pip' 2>/dev/null || python3 -m venv --clear "$venv"
  once_for "$venv/.$1.stamp" "$(cat scripts/requirements-*.txt | sha256sum)" \
    "$venv/bin/python" -m pip install --progress-bar off -r "scripts/$1"
}

# build_cpp PRESET [targets]: configures where needed, and builds.
build_cpp() {
  local preset=$1
  shift
  cmake --preset "$preset" -DPython3_EXECUTABLE="$venv/bin/python"
  cmake --build --preset "$preset" ${1:+--target "$@"}
}

test_cpp() {
  local out=$logs/ctest-$1.txt
  # Of tests that passed only the number is of interest.
  ctest --preset "$1" | tee "$out" | { grep -vE '^ *Start +[0-9]+:|   Passed +[0-9.]+ sec$' || true; }
  echo "result: $(sed -n 's/.*100% tests passed.* out of \([0-9]*\)$/\1 tests passed/p' "$out")"
}

# Everything that goes into the wheel.
python_package_sum() {
  find CMakeLists.txt pyproject.toml cmake include src python -type f -not -path '*/__pycache__/*' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum
}

# The Python package and the command `penstock`; the build folder is kept, so that only what has changed is compiled.
python_package() {
  once_for "$venv/.penstock.stamp" "$(python_package_sum)" \
    "$venv/bin/python" -m pip install --no-build-isolation --no-deps --force-reinstall .
}

# Two processes share them, those on Ray all in one; ends this script with pytest's summary.
python_tests() { exec "$venv/bin/python" -m pytest -q -n 2 --dist loadgroup "$@"; }
