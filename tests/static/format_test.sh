#!/usr/bin/env bash
# Every source is as clang-format leaves it; skipped where clang-format is absent or not of Debian 12's version.
# usage: format_test.sh ROOT
set -euo pipefail
version=$(clang-format --version 2>/dev/null | grep -oE 'version [0-9]+' | head -n 1 || true)
if [ "$version" != "version 14" ]; then
  echo "skipped: needs clang-format 14, found ${version:-none}"
  exit 77
fi
exec "$1/run" format --check
