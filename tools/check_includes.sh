#!/usr/bin/env bash
# Fail on an include that src/rooms.txt does not allow.      usage: tools/check_includes.sh [ROOT]
# Checks every #include of src/ and apps/, that own headers are included from the root of src/ (those of apps/ as apps/...), and that
# the installed headers (cmake/public_headers.txt) include only the standard library and each other.
set -euo pipefail
root=${1:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$root"
[ -f src/rooms.txt ] || { echo "check_includes: no src/rooms.txt under $root" >&2; exit 2; }
public=cmake/public_headers.txt
[ -f "$public" ] || public=/dev/null
find src $([ ! -d apps ] || echo apps) -name '*.h' -o -name '*.cpp' | sort | tr '\n' '\0' | xargs -0 -r grep -HnE '^[[:space:]]*#[[:space:]]*include' |
awk -v table=src/rooms.txt -v public="$public" '
  function room_of(path,   r) {           # the longest row that is a folder of path
    r = path; while (sub(/\/[^\/]*$/, "", r)) if (r in known) return r
    return ""
  }
  function complain(text) { print place ": " text; bad++ }
  BEGIN {
    while ((getline line < table) > 0) {
      sub(/#.*/, "", line); if (line !~ /:/) continue
      row = line; sub(/:.*/, "", row); gsub(/[ \t]/, "", row); rest = line; sub(/^[^:]*:/, "", rest)
      n = split(rest, word, " ")
      if (row ~ /^</) { vendor[++vendors] = substr(row, 2); for (i = 1; i <= n; i++) vendor_ok[substr(row, 2), word[i]] = 1; continue }
      known[row] = 1; rows[++count] = row; may[row, row] = 1
      for (i = 1; i <= n; i++) if (word[i] == "*") all[row] = 1
        else { if (!(word[i] in known)) { print table ": " row " lists " word[i] ", which has no row above it"; bad++ }
               for (j = 1; j <= count; j++) if ((word[i], rows[j]) in may) may[row, rows[j]] = 1 }
    }
    while ((getline line < public) > 0) { sub(/#.*/, "", line); gsub(/[ \t]/, "", line); if (line != "") installed[line] = 1 }
  }
  {
    match($0, /:[0-9]+:/); file = substr($0, 1, RSTART - 1); place = file substr($0, RSTART, RLENGTH - 1)
    text = substr($0, RSTART + RLENGTH); own = sub(/^[ \t]*#[ \t]*include[ \t]*"/, "", text)
    if (!own && !sub(/^[ \t]*#[ \t]*include[ \t]*</, "", text)) next
    sub(/[">].*/, "", text); path = file; sub(/^src\//, "", path); room = room_of(path)
    if (room == "") { complain("the folder has no row in " table); next }
    if (own) {
      other = room_of(text)
      if (text ~ /^\.|^[^\/]*$/ || other == "") complain("\"" text "\" is not a path from the root of src/")
      else if (!(room in all) && !((room, other) in may)) complain(room "/ may not include \"" text "\" of " other "/")
      if ((path in installed) && !(text in installed)) complain("an installed header includes \"" text "\", which is not installed")
      next
    }
    for (i = 1; i <= vendors; i++) if (index(text, vendor[i]) == 1 && !((vendor[i], room) in vendor_ok))
      complain(room "/ may not include <" text ">")
    if ((path in installed) && text ~ /[\/.]/) complain("an installed header includes <" text ">, which is not the standard library")
  }
  END { if (bad) { print bad " include(s) against " table; exit 1 } }'
