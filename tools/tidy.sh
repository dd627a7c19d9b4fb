#!/usr/bin/env bash
# clang-tidy by the list in .clang-tidy, every finding an error, over the sources of src/ that are not known to be clean.
# tools/tidy_clean.txt remembers those by the hash of their text and of the list, so that a check costs what has changed.
# usage: tidy.sh ROOT BUILD check|update     update: also write down what is clean now
set -euo pipefail
cd "$1"
build=$2 mode=$3 known=tools/tidy_clean.txt
version=$(clang-tidy --version 2>/dev/null | grep -oE 'version [0-9]+' | head -n 1 || true)
if [ "$version" != "version 14" ]; then
  echo "skipped: needs clang-tidy 14, found ${version:-none}"
  exit 77
fi
list=$(sha256sum .clang-tidy | cut -c1-12)
now=$(find src -name '*.cpp' -o -name '*.h' | LC_ALL=C sort | xargs sha256sum | awk -v list="$list" '{ print $2, substr($1, 1, 16) list }')
changed=$(comm -23 <(LC_ALL=C sort <<<"$now") <(LC_ALL=C sort "$known" 2>/dev/null || true) | cut -d' ' -f1)

# What a header says is checked in the source of its name, or in one that includes it.
sources=$(while read -r file; do
  case $file in
    *.cpp) echo "$file" ;;
    *.h)
      if [ -e "${file%.h}.cpp" ]; then echo "${file%.h}.cpp"
      else grep -rlF "#include \"${file#src/}\"" src --include='*.cpp' | LC_ALL=C sort | head -n 1; fi ;;
  esac
done <<<"$changed" | LC_ALL=C sort -u | grep . || true)

if [ -n "$sources" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # g++'s precompiled headers are nothing to clang.
  sed -E 's/ -include [^ ]*cmake_pch\.hxx//' "$build/compile_commands.json" >"$work/compile_commands.json"
  if ! xargs -n 2 -P "$(nproc)" clang-tidy --quiet -p "$work" <<<"$sources" >"$work/out" 2>&1; then
    grep -E 'error:|warning:' "$work/out" | sort -u | head -n 40
    echo "clang-tidy: findings above"
    exit 1
  fi
fi
echo "clang-tidy: $(wc -w <<<"$sources") sources checked, the rest known to be clean"
[ "$mode" != update ] || { printf '%s\n' "$now" >"$known.new" && mv "$known.new" "$known"; }
