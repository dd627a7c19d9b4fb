#!/usr/bin/env bash
# Run a sanitized test program; once more where LeakSanitizer itself crashed (g++ 12's does now and then at the end of a process that
# has compiled kernels), and nowhere else.      usage: tools/second_try.sh PROGRAM [ARG ...]
set -uo pipefail
output=$(mktemp)
trap 'rm -f "$output"' EXIT
"$@" 2>&1 | tee "$output"
rc=${PIPESTATUS[0]}
[ "$rc" = 0 ] || ! grep -q 'LeakSanitizer has encountered a fatal error' "$output" || {
  echo "second_try: LeakSanitizer crashed in $(basename "$1"), shard ${GTEST_SHARD_INDEX:-0}; once more"
  "$@"
  rc=$?
}
exit "$rc"
