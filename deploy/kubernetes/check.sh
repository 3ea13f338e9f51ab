#!/usr/bin/env bash
# Render the overlays and hold them against the schemas of a cluster's version, strictly.
# Needs kubectl (or kustomize) and PyPI's kubernetes-validate; VERSION (1.34).
# The Prometheus Operator's objects have no schema there: tests/test_kubernetes.py looks at what they name.
set -euo pipefail
need() { command -v "$1" > /dev/null || { echo "$1 is needed: $2" >&2; exit 1; }; }
command -v kustomize > /dev/null || need kubectl "https://kubernetes.io/docs/tasks/tools, or kustomize in its place"
need kubernetes-validate "pip install kubernetes-validate"
cd "$(dirname "$0")"
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for overlay in small production; do
  if command -v kustomize > /dev/null; then kustomize build "$overlay"; else kubectl kustomize "$overlay"; fi \
    > "$rendered/$overlay.yaml"
  kubernetes-validate --strict -k "${VERSION:-1.34}" "$rendered/$overlay.yaml"
done
