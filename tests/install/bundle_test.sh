#!/usr/bin/env bash
# The bundle unpacks to programs that start from any folder; without a GPU the check is skipped, which is no pass.
#   usage: bundle_test.sh ROOT BUILD
set -euo pipefail
root=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# Images of one check: all take NVRTC minutes. Without NVRTC, none.
images=yes
if ! "$root/tools/bundle" "$work/b.tar.gz" "$build" --only 'error of exp' >made 2>&1; then
  grep -q 'there is no NVRTC' made || { echo "no bundle is made:"; cat made; exit 1; }
  cat made
  images=no
  "$root/tools/bundle" "$work/b.tar.gz" "$build" --no-images
fi
tar xzf b.tar.gz
if [ $images = yes ]; then
  grep -q '"sm_90"' espalier-gpu/lib/kernel_images/images.json || { echo "the bundle has no images for sm_90"; exit 1; }
fi
espalier-gpu/run espalier devices --json >devices.json
grep -q '"cuda"' devices.json || { echo "devices say nothing of CUDA"; exit 1; }
rc=0
CUDA_VISIBLE_DEVICES=-1 espalier-gpu/run gpu_check --part 1 --out results >said || rc=$?
[ $rc = 77 ] || { echo "gpu_check without a GPU ended with $rc, not 77:"; cat said; exit 1; }
grep -q '^\[SKIP\] part 1: ' said || { echo "it does not say that it was skipped:"; cat said; exit 1; }
rc=0
"$root/tools/bundle" "$work/none.tar.gz" "$work" 2>said || rc=$?
[ $rc = 1 ] && [ ! -e none.tar.gz ] && grep -q 'is not built' said || { echo "a build that is none is packed"; exit 1; }
rc=0
"$root/tools/bundle" "$work/nowhere/b.tar.gz" "$build" --no-images 2>said || rc=$?
[ $rc = 1 ] && grep -q 'cannot be written' said || { echo "where it cannot write it does not say so first:"; cat said; exit 1; }
