#!/usr/bin/env bash
# Try an image as a cluster would run it: nothing writable but /tmp, no privileges, bounded memory
# and cores, keys asked for. Every surface is asked, a worker killed, the rest stopped.
#   try.sh IMAGE     PORT (3000) of 127.0.0.1; FOLDER for keys (a new one)
set -euo pipefail
need() { command -v "$1" > /dev/null || { echo "$1 is needed: $2" >&2; exit 1; }; }
need podman "apt-get install podman catatonit, or what your system calls them"
cd "$(dirname "$0")/.."
image=${1:?which image}
port=${PORT:-3000}
if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
  echo "port $port is taken: PORT=$((port + 1)) deploy/try.sh $image" >&2; exit 1
fi
folder=$(mktemp -d)
name=kadogo-try-$$
trap 'podman rm --force --time 0 "$name" > /dev/null 2>&1 || true; rm -rf "$folder"' EXIT

# Without keys it must not start where others reach it.
if podman run --rm --network host -e BENTOML_PORT="$port" "$image" 2> "$folder/refused"; then
  echo "it started without keys" >&2; exit 1
fi
grep -q KADOGO_AUTH "$folder/refused" || { cat "$folder/refused" >&2; exit 1; }

podman run --rm "$image" python -m service.keys new try --scope infer --scope admin \
  > "$folder/keys.toml" 2> "$folder/token"
key=$(tail -n 1 "$folder/token")
chmod -R a+rX "$folder"

begun=$(date +%s.%N)
podman run --detach --init --name "$name" --network host \
  --read-only --tmpfs /tmp:rw,size=64m --cap-drop all --security-opt no-new-privileges \
  --memory "${MEMORY:-2g}" --cpus "${CPUS:-2}" \
  -v "$folder/keys.toml:/keys.toml:ro" -e KADOGO_KEYS=/keys.toml -e BENTOML_PORT="$port" \
  -e BENTOML_HOME=/tmp/bentoml "$image" > /dev/null  # where BentoML's own image writes
KADOGO_KEY=$key python3 deploy/ask.py "http://127.0.0.1:$port" --wait 120 \
  || { podman logs "$name" | tail -n 20 >&2; exit 1; }
echo "ready and asked after $(python3 -c "import time; print(round(time.time() - $begun, 1))") s"
if podman image inspect --format '{{.HealthCheck}}' "$image" | grep -q readyz; then
  podman healthcheck run "$name"
else
  echo "$image has no health check: ask /readyz"
fi

podman exec "$name" python -c '
import psutil
worker, = (p for p in psutil.process_iter() if "_bentoml_impl.worker.service" in p.cmdline())
worker.kill()'
sleep 1
KADOGO_KEY=$key python3 deploy/ask.py "http://127.0.0.1:$port" --wait 60
echo "a killed worker was replaced"

podman stop --time 30 "$name" > /dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || { podman logs "$name" | tail -20 >&2; echo "it ended with $code" >&2; exit 1; }
echo "$image: everything answered, and it stopped by itself"
