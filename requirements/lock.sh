#!/usr/bin/env bash
# Resolve the .in files into pinned .txt files. pip-compile is the console script on purpose:
# `python -m piptools` would import our own folder named build.
set -euo pipefail
cd "$(dirname "$0")"
# seqeval is built to be asked what it needs, with what a newer setuptools_scm no longer brings.
constraint=$(mktemp)
trap 'rm -f "$constraint"' EXIT
echo 'setuptools_scm<10' > "$constraint"
export PIP_CONSTRAINT=$constraint
for name in serve build loadtest test bitsandbytes openvino tracing bulk; do
  ../.venv/bin/pip-compile --quiet --upgrade --no-header --strip-extras --annotation-style line \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file "$name.txt" "$name.in"
  # A CPU build's local version tag would tie the pin to one index.
  sed -i -E 's/^([A-Za-z0-9_.-]+==[^ +]+)\+[a-z0-9.]+/\1/' "$name.txt"
done
