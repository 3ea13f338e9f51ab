#!/usr/bin/env bash
# Run the manifest's container with podman, as the small overlay says it: user, limits, read-only,
# capabilities, volumes. Ask it everything, and stop it. No cluster: a Service, probes,
# a NetworkPolicy and an autoscaler are nobody's here.
# Needs kubectl (or kustomize), podman and the image kadogo:slim; port 3000 of 127.0.0.1.
set -euo pipefail
need() { command -v "$1" > /dev/null || { echo "$1 is needed: $2" >&2; exit 1; }; }
need podman "apt-get install podman, or what your system calls it"
command -v kustomize > /dev/null || need kubectl "https://kubernetes.io/docs/tasks/tools, or kustomize in its place"
cd "$(dirname "$0")/../.."
if (exec 3<> /dev/tcp/127.0.0.1/3000) 2> /dev/null; then
  echo "port 3000, which the manifest names, is taken: stop who listens (ss -ltnp 'sport = 3000')" >&2; exit 1
fi
if podman pod exists kadogo-pod-0; then echo "there is a pod of that name already" >&2; exit 1; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

podman run --rm kadogo:slim python -m service.keys new play --scope infer --scope admin \
  > "$folder/keys.toml" 2> "$folder/token"
key=$(tail -n 1 "$folder/token")
chmod -R a+rX "$folder"
if command -v kustomize > /dev/null; then kustomize build deploy/kubernetes/podman
else kubectl kustomize deploy/kubernetes/podman; fi \
  | sed "s|path: KEYS|path: $folder|" > "$folder/pod.yaml"

trap 'podman play kube --down "$folder/pod.yaml" > /dev/null 2>&1 || true; rm -rf "$folder"' EXIT
podman play kube "$folder/pod.yaml"
name=$(podman ps --all --format '{{.Names}}' | grep -m 1 kadogo-pod) || { echo "no container began" >&2; exit 1; }
KADOGO_KEY=$key python3 deploy/ask.py http://127.0.0.1:3000 --wait 60 \
  || { podman logs "$name" | tail -n 20 >&2; exit 1; }
podman inspect --format 'memory {{.HostConfig.Memory}}, read-only {{.HostConfig.ReadonlyRootfs}}, user {{.Config.User}}' "$name"
podman play kube --down "$folder/pod.yaml"
