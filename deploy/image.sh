#!/usr/bin/env bash
# Build a Bento and a container image of it with docker, podman or buildah, whichever works here.
#   IMAGE  the image's tag (kadogo:latest)      BACKEND  docker, podman or buildah
set -euo pipefail
cd "$(dirname "$0")/.."
export BENTOML_DO_NOT_TRACK=True
image=${IMAGE:-kadogo:latest}

works() { command -v "$1" > /dev/null && "$1" info > /dev/null 2>&1; }

.venv/bin/bentoml build

for backend in ${BACKEND:-docker podman buildah}; do
  if works "$backend"; then
    .venv/bin/bentoml containerize kadogo:latest --backend "$backend" --image-tag "$image"
    echo "run it: $backend run --rm -p 127.0.0.1:3000:3000 -e KADOGO_AUTH=off $image"
    echo "with keys, for others too: $backend run --rm -p 3000:3000 \\"
    echo "  -v ./keys.toml:/keys.toml:ro -e KADOGO_KEYS=/keys.toml $image     (docs/api.md)"
    exit 0
  fi
done
echo "The Bento is built, its image is not: install docker, podman or buildah" >&2
exit 1
