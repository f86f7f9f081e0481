#!/usr/bin/env bash
# Run tests of the native engine with GCC's sanitizers watching it.
#
#   scripts/sanitize.sh [--only address|thread] TEST...     TEST: pytest files or other arguments of pytest
#   scripts/sanitize.sh tests/native
#
# Two builds, because the sanitizers exclude each other: address with undefined behaviour, and thread. Each goes into a
# copy of the package that PYTHONPATH puts first, so the library in src/ stays as it is. Any finding ends the test
# process with an error. CXX, when set, must be a GCC. PYTHON names the interpreter that has the tests' libraries
# (default: .venv/bin/python).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kinds="address thread"
if [[ ${1:-} == --only ]]; then
  kinds=${2:?--only needs a name}
  shift 2
fi
[[ $# -gt 0 ]] || { echo "Which tests? scripts/sanitize.sh tests/native" >&2; exit 2; }
python=${PYTHON:-.venv/bin/python}
compiler=${CXX:-c++}
failed=0

for kind in $kinds; do
  case $kind in
    address) flags=address,undefined runtime=asan ;;
    thread) flags=thread runtime=tsan ;;
    *) echo "--only takes address or thread, not $kind" >&2; exit 2 ;;
  esac
  folder=$PWD/build/sanitize-$kind
  mkdir -p build
  cmake -S native -B "$folder/cmake" -DCROSSRANK_SANITIZE="$flags" >"$folder.log" 2>&1 \
    && cmake --build "$folder/cmake" >>"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
  rm -rf "$folder/python"
  mkdir -p "$folder/python"
  cp -r src/crossrank "$folder/python/"
  rm -f "$folder"/python/crossrank/backends/cpu/libcrossrank.*
  cp "$folder/cmake/libcrossrank.so" "$folder/python/crossrank/backends/cpu/"

  # Python itself is not instrumented, so the runtime has to be there before it. The C++ library comes along, because
  # the runtime looks for its exceptions when the process starts. With ignore_noninstrumented_modules the thread
  # sanitizer leaves NumPy and tokenizers alone: it cannot see their locks.
  preload=$("$compiler" -print-file-name="lib$runtime.so"):$("$compiler" -print-file-name=libstdc++.so)
  # Python never frees some of its objects: leaks would all be its own. With PYTHONMALLOC the buffers that Python
  # passes in are guarded too. Without die_after_fork=0 the sanitizer ends every child of a process with threads.
  environment=(
    LD_PRELOAD="$preload" PYTHONPATH="$folder/python" PYTHONMALLOC=malloc
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
    TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1:second_deadlock_stack=1:die_after_fork=0
  )
  run=("$python")
  # GCC 13 and older know no addresses that newer kernels give out at random.
  if [[ $kind == thread ]] && command -v setarch >/dev/null; then
    run=(setarch "$(uname -m)" -R "$python")
  fi
  env "${environment[@]}" "${run[@]}" - <<'PROGRAM'
import ctypes, os
from pathlib import Path
import crossrank

package = Path(crossrank.__file__).parent
assert str(package).startswith(os.environ["PYTHONPATH"]), f"PYTHONPATH does not win over {package}"
ctypes.CDLL(str(package / "backends" / "cpu" / "libcrossrank.so"))
PROGRAM
  # --capture=sys: the report is written past Python, and pytest would take it into the grave.
  echo "== $flags"
  env "${environment[@]}" "${run[@]}" -m pytest -o timeout=3600 -p no:cacheprovider --capture=sys "$@" || failed=1
done
exit $failed
