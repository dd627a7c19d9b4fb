#!/usr/bin/env bash
# Write each ```cpp run block of Markdown pages as OUT/PAGE_N.cpp, and the ```text output block that follows it (if one
# does) as OUT/PAGE_N.expected; print the names. Unchanged files keep their time.      usage: extract_programs.sh OUT PAGE...
set -euo pipefail
out=$1
shift
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$out"
awk -v out="$fresh" '
  FNR == 1 { page = FILENAME; sub(/\.md$/, "", page); n = split(page, part, "/"); page = tolower(part[n])
             if (n > 1 && part[n - 1] == "rooms") page = "rooms_" page; count = 0; state = "" }
  state == "" && /^```cpp run[ \t]*$/ { state = "code"; name = page "_" ++count; print name; file = out "/" name ".cpp"
    printf "#line %d \"%s\"\n", FNR + 1, FILENAME > file; next }
  state == "" && /^```text output[ \t]*$/ && name != "" { state = "text"; file = out "/" name ".expected"; printf "" > file; next }
  state != "" && /^```[ \t]*$/ { close(file); if (state == "text") name = ""; state = ""; next }
  state != "" { print > file }' "$@"
for file in "$fresh"/*; do
  [ -e "$file" ] || continue
  cmp -s "$file" "$out/${file##*/}" || cp "$file" "$out/"
done
for file in "$out"/*.expected; do
  [ ! -e "$file" ] || [ -e "$fresh/${file##*/}" ] || rm "$file"
done
