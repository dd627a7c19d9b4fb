#!/usr/bin/env bash
# The include check refuses what it must: each line below is one bad include.      usage: check_includes_test.sh ROOT
set -euo pipefail
root=$1
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/src/base" "$copy/src/ir" "$copy/src/target/cpu" "$copy/cmake"
cp "$root/src/rooms.txt" "$copy/src/"
echo base/public.h >"$copy/cmake/public_headers.txt"
refuses() { # FILE INCLUDE WHY
  printf '#include %s\n' "$2" >"$copy/src/$1"
  if text=$("$root/tools/check_includes.sh" "$copy"); then echo "not refused: $2 in $1"; exit 1; fi
  case $text in *"$1:1: "*"$3"*) ;; *) echo "refused without its reason ($3): $text"; exit 1 ;; esac
  rm "$copy/src/$1"
}
printf '#include "base/error.h"\n#include <vector>\n' >"$copy/src/ir/fine.h"
"$root/tools/check_includes.sh" "$copy"
refuses base/up.h '"ir/graph.h"' 'base/ may not include "ir/graph.h"'
refuses ir/up.cpp '"target/cpu/emit.h"' 'of target/cpu/'
refuses target/cpu/up.cpp '"run/program.h"' 'of run/'
refuses ir/relative.cpp '"graph.h"' 'not a path from the root'
refuses ir/relative.cpp '"../base/error.h"' 'not a path from the root'
refuses ir/vendor.h '<dnnl.hpp>' 'may not include <dnnl.hpp>'
refuses target/cpu/vendor.cpp '<onnx/onnx_pb.h>' 'may not include <onnx/onnx_pb.h>'
refuses base/public.h '<fmt/format.h>' 'not the standard library'
refuses base/public.h '"base/hidden.h"' 'not installed'
mkdir "$copy/src/common"
refuses common/x.h '<vector>' 'no row'
