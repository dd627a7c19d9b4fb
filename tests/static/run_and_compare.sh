#!/usr/bin/env bash
# Run a program in an empty folder; where a file of expected output exists, its output must be that.
# usage: run_and_compare.sh PROGRAM EXPECTED
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$1" >output.txt || { echo "exit code $?"; cat output.txt; exit 1; }
[ ! -e "$2" ] || diff -u "$2" output.txt
