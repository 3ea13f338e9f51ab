#!/usr/bin/env bash
# A stand-in for python:3.11-slim where no registry can be reached: Debian 12 and its Python, tagged
# so that FROM python:3.11-slim finds it. Needs root, podman and mmdebstrap. No certificate goes in.
set -euo pipefail
need() { command -v "$1" > /dev/null || { echo "$1 is needed: $2" >&2; exit 1; }; }
need podman "apt-get install podman"
image=${1:-python:3.11-slim}

if podman image exists "docker.io/library/$image"; then exit 0; fi
need mmdebstrap "apt-get install mmdebstrap"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# mmdebstrap's own user must read the folder.
chmod 755 "$folder"
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
  --customize-hook='chroot "$1" python3 -m venv /usr/local' \
  bookworm "$folder/base.tar" /etc/apt/sources.list.d/debian.sources
podman import --quiet --change 'CMD ["python3"]' "$folder/base.tar" "docker.io/library/$image"
