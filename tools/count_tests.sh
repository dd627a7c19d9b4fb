#!/usr/bin/env bash
# Print "PASSED FAILED SKIPPED" of the last ctest run in a build folder.      usage: tools/count_tests.sh BUILD_DIR
# A GoogleTest program counts its own test cases (results/NAME.xml, written by the ctest test NAME); one that left no file
# (it crashed, or is no GoogleTest program) counts as one test.
set -euo pipefail
dir=$1
[ -f "$dir/junit.xml" ] || { echo "count_tests: no $dir/junit.xml" >&2; exit 1; }
sed -nE 's/.*<testcase name="([^"]*)".* status="([^"]*)".*/\1 \2/p' "$dir/junit.xml" | while read -r name status; do
  xml=$dir/results/$name.xml
  if [ -s "$xml" ]; then
    awk -v status="$status" '
      function field(name,   text) { if (!match($0, " " name "=\"[0-9]+\"")) return 0; text = substr($0, RSTART, RLENGTH); gsub(/[^0-9]/, "", text); return text + 0 }
      /<testsuites / { tests = field("tests"); bad = field("failures") + field("errors") }
      /<testcase .*result="skipped"/ { skipped++ }
      /<testcase .*status="notrun"/ { unused++ }
      END { if (status == "fail" && !bad) { bad = 1; tests++ } print tests - bad - skipped - unused, bad, skipped + 0 }' "$xml"
  else
    case $status in run) echo 1 0 0 ;; fail) echo 0 1 0 ;; *) echo 0 0 1 ;; esac
  fi
done | awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }'
