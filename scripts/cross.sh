#!/usr/bin/env bash
# Compile the native engine for systems that this machine is not: does the portable tier still build there?
#
#   scripts/cross.sh [TARGET...]      default: AArch64 on Linux and macOS, x86-64 on macOS
#
# Targets are zig's names. The compiler, Clang with the headers of each system, comes from the package index (ziglang, some
# 80 MB) into build/cross. Nothing of the result is run. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$PWD/build/cross
mkdir -p "$work"
[ $# -gt 0 ] || set -- aarch64-linux-gnu aarch64-macos x86_64-macos

[ -x "$work/env/bin/python" ] || "${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet ziglang cmake
export ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache

for target; do
  # CMake takes a compiler and its first argument as a list; here the target belongs to the compiler as well.
  printf '#!/bin/sh\nexec "%s" -m ziglang c++ -target %s "$@"\n' "$work/env/bin/python" "$target" > "$work/c++-$target"
  printf '#!/bin/sh\nexec "%s" -m ziglang ar "$@"\n' "$work/env/bin/python" > "$work/ar"
  chmod +x "$work/c++-$target" "$work/ar"
  case $target in
    *windows*) system=Windows ;;
    *macos*) system=Darwin ;;
    *) system=Linux ;;
  esac
  rm -rf "${work:?}/$target"
  "$work/env/bin/cmake" -S native -B "$work/$target" -DCMAKE_SYSTEM_NAME="$system" -DCMAKE_SYSTEM_PROCESSOR="${target%%-*}" \
    -DCMAKE_CXX_COMPILER="$work/c++-$target" -DCMAKE_AR="$work/ar" -DCMAKE_OSX_SYSROOT= -DCMAKE_OSX_ARCHITECTURES= > "$work/$target.log"
  "$work/env/bin/cmake" --build "$work/$target" >> "$work/$target.log" || { tail -40 "$work/$target.log" >&2; exit 1; }
  echo "$target: $(cd "$work/$target" && ls -- *crossrank.so *crossrank.dylib *crossrank.dll 2>/dev/null | tr '\n' ' ')"
done
