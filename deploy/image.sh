#!/usr/bin/env bash
# Build a container image with docker, podman or buildah, whichever works here.
#   TARGET    bento (BentoML's own builder), or slim or torch of deploy/Dockerfile (bento)
#   IMAGE     the image's tag (kadogo:latest)     BACKEND  docker, podman or buildah
#   EXTRA_CA  certificates to trust besides while packages are installed; kept in no layer
#   BUILD     more for the builder, as BUILD="--network host"
# Names of one thing each: TORCH_INDEX, PIP_INDEX_URL and PIP_FIND_LINKS reach pip.
set -euo pipefail
cd "$(dirname "$0")/.."
export BENTOML_DO_NOT_TRACK=True
image=${IMAGE:-kadogo:latest}
target=${TARGET:-bento}
read -ra more <<< "${BUILD:-}"

works() { command -v "$1" > /dev/null && "$1" info > /dev/null 2>&1; }

case $target in
  bento)
    if [ -n "${EXTRA_CA:-}" ]; then
      echo "BentoML's builder takes no certificates: TARGET=slim does" >&2
      exit 2
    fi
    .venv/bin/bentoml build ;;
  slim | torch)
    args=(--file deploy/Dockerfile --target "$target" --tag "$image")
    for name in TORCH_INDEX PIP_INDEX_URL PIP_FIND_LINKS; do
      if [ -n "${!name:-}" ]; then args+=(--build-arg "$name=${!name}"); fi
    done
    if [ -n "${EXTRA_CA:-}" ]; then args+=(--secret "id=extra_ca,src=$EXTRA_CA"); fi ;;
  *)
    echo "TARGET=$target is none of bento, slim, torch" >&2
    exit 2 ;;
esac

for backend in ${BACKEND:-docker podman buildah}; do
  if works "$backend"; then
    case $target:$backend in
      bento:*) .venv/bin/bentoml containerize kadogo:latest --backend "$backend" --image-tag "$image" ;;
      # The format of OCI knows no health checks.
      *:docker) DOCKER_BUILDKIT=1 docker build "${args[@]}" "${more[@]}" . ;;
      *) "$backend" build --format docker "${args[@]}" "${more[@]}" . ;;
    esac
    echo "run it: $backend run --rm -p 127.0.0.1:3000:3000 -e KADOGO_AUTH=off $image"
    echo "with keys, for others too: $backend run --rm -p 3000:3000 \\"
    echo "  -v ./keys.toml:/keys.toml:ro -e KADOGO_KEYS=/keys.toml $image     (docs/api.md)"
    exit 0
  fi
done
if [ "$target" = bento ]; then echo "The Bento is built, its image is not:" >&2; fi
echo "install docker, podman or buildah" >&2
exit 1
