#!/usr/bin/env bash
# Install a build to an empty folder, build a program against it with find_package, and run that and the installed
# command line.      usage: test.sh BUILD_DIR COMPILER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cmake --install "$1" --prefix "$folder/prefix" >"$folder/install.log" || { cat "$folder/install.log"; exit 1; }
cmake -S "$here" -B "$folder/build" -G Ninja -DCMAKE_PREFIX_PATH="$folder/prefix" -DCMAKE_CXX_COMPILER="$2"
cmake --build "$folder/build"
export ESPALIER_CACHE_DIR="$folder/cache"
"$folder/build/user"
"$folder/build/user" cached # an installed product needs no LLVM for what is cached
tool=$folder/prefix/bin/espalier
if [ -e "$tool" ]; then
  "$tool" --help >/dev/null
  plugin=$(find "$folder/prefix" -name libespalier_cuda.so)
  if ldd "$plugin" | grep -E 'lib(cu|nv|nccl)'; then echo "the plugin links a library of NVIDIA's"; exit 1; fi
  "$tool" devices >"$folder/devices"
  grep -qx "plugin   $plugin" "$folder/devices" || { cat "$folder/devices"; exit 1; }
  rm "$plugin" # nothing else misses it
  "$tool" devices >"$folder/devices"
  grep -q '^gpu      none: the CUDA plugin is not used: libespalier_cuda.so is not there$' "$folder/devices" || { cat "$folder/devices"; exit 1; }
  "$folder/build/user" cached
fi
