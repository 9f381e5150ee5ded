#!/usr/bin/env bash
# Builds both images without a Docker daemon and runs them: the server answers /healthz, a worker finishes one CPU
# trial with it, the server ends at SIGTERM. Needs root, buildah, about 25 GB of disk and, without BASE, debootstrap.
#
#   docker/verify.sh [FOLDER]      writes everything into FOLDER and keeps base and images there;
#                                  without FOLDER uses a temporary folder and removes it
#
#   BASE=python:3.12-slim-bookworm   the base image; without it debootstrap makes a Debian with python3
#   WHEELS=FOLDER                    pip uses only the packages in this folder, not PyPI
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp --directory)}
kept=${1:+yes}
mkdir --parents "$folder"
folder=$(realpath "$folder")
port=${PORT:-8418} # containers share the host's network here
server_pid=
b() { buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver "${STORAGE_DRIVER:-overlay}" "$@"; }
say() { printf '\n== %s\n' "$*"; }
clean_up() {
    [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
    b rm --all >/dev/null 2>&1 || true
    rm -rf "$folder"/{key,data,runs}
    if [ -z "$kept" ]; then
        b rmi --all --force >/dev/null 2>&1 || true
        rm -rf "$folder"
    fi
}
trap clean_up EXIT

# Prints an entry of a container's configuration, one word a line.
configured() { # CONTAINER DOCKER_KEY...
    b inspect "$1" | python3 -c '
import functools, json, sys
words = functools.reduce(lambda part, key: part[key], sys.argv[1:], json.load(sys.stdin)["Docker"]["config"])
print("\n".join(words))' "${@:2}"
}
run() { # CONTAINER ARGUMENT...
    local container=$1
    shift
    mapfile -t entry < <(configured "$container" Entrypoint)
    b run --isolation chroot --volume "$folder/key:/key" --volume "$folder/data:/data" --volume "$folder/runs:/runs" \
        --env WANDB_BASE_URL="http://127.0.0.1:$port" --env AMC_KEY_FILE="${AMC_KEY_FILE:-}" \
        --env AMC_DATA=/data/frames.hdf5 --env OMP_NUM_THREADS=1 "$container" -- "${entry[@]}" "$@"
}

if [ -z "${BASE:-}" ] && BASE=localhost/amc-base && ! b inspect --type image "$BASE" >/dev/null 2>&1; then
    say "base: Debian with python3"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/base" >"$folder/base.log"
    rm -rf "$folder"/base/var/cache/apt/archives/*.deb "$folder"/base/var/lib/apt/lists/*
    made=$(b from scratch)
    b add --quiet "$made" "$folder/base" / >/dev/null
    b config --cmd /bin/sh "$made"
    b commit --quiet --format docker --rm "$made" "$BASE" >/dev/null
    rm -rf "$folder/base"
fi

options=(--format docker --isolation chroot --build-arg "BASE=$BASE")
if [ -n "${WHEELS:-}" ]; then
    options+=(--volume "$(realpath "$WHEELS"):/wheels:ro" --build-arg PIP_FIND_LINKS=/wheels --build-arg PIP_NO_INDEX=1)
fi
for image in server worker; do
    say "build: $image"
    file=docker/Dockerfile
    [ $image = worker ] || file=docker/server.Dockerfile
    b build "${options[@]}" --file $file --tag "localhost/amc-sweep-$image" . >"$folder/$image.log" 2>&1 ||
        { tail -n 40 "$folder/$image.log"; exit 1; }
done
b images

mkdir "$folder/key" "$folder/data" "$folder/runs"
chown 10001:10001 "$folder/key" "$folder/data" "$folder/runs"
server=$(b from localhost/amc-sweep-server)
worker=$(b from localhost/amc-sweep-worker)

say "server: does not run as root; has no torch, wandb, pandas or h5py"
b run --isolation chroot "$server" -- python3 -c '
import importlib.util, os
assert os.getuid() == 10001, os.getuid()
installed = [name for name in ("torch", "wandb", "pandas", "h5py", "numba", "timm") if importlib.util.find_spec(name)]
assert not installed, installed'
say "server: the entry point listens; the health check passes"
run "$server" serve --host 0.0.0.0 --port "$port" --data /data/server --key-file /key/api.key >"$folder/serve.log" 2>&1 &
for _ in $(seq 100); do
    curl --silent --fail "http://127.0.0.1:$port/healthz" && break
    sleep 0.2
done
cat "$folder/serve.log"
server_pid=$(pgrep --full "[s]erve --host 0.0.0.0 --port $port --data /data/server" --newest)
mapfile -t health < <(configured "$server" Healthcheck Test)
health=("${health[@]//8418/$port}")
b run --isolation chroot "$server" -- "${health[@]:1}" # without the word CMD

say "worker: does not run as root; one CPU trial, from synthetic frames to a finished run"
export AMC_KEY_FILE=/key/api.key
run "$worker" sh -c 'test "$(id -u)" = 10001'
run "$worker" amc-data synth /data/frames.hdf5 --frames-per-cell 10 --snr 10:16:2
cat >"$folder/data/one.yaml" <<'YAML'
program: amc-train
command: ["${env}", "${program}", "${args}"]
method: grid
metric: {name: val/combined_acc, goal: maximize}
parameters:
  max_lr: {value: 0.003}
  model_type: {value: test_vit}
  image_size: {value: 32}
  snr_min_db: {value: 10}
  snr_max_db: {value: 16}
  batch_size: {value: 64}
  epochs: {value: 2}
  epochs_per_cycle: {value: 2}
  patience: {value: 2}
  split: {value: [0.7, 0.2, 0.1]}
YAML
created=$(run "$worker" amc-sweep create /data/one.yaml --project verify --json)
path=$(printf '%s' "$created" | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')
run "$worker" wandb agent --count 1 "$path"
run "$worker" amc-sweep status "$path"
run "$worker" amc-sweep status "$path" --json | python3 -c '
import json, sys
status = json.load(sys.stdin)
assert status["runs"]["by_state"] == {"finished": 1}, status["runs"]
assert status["runs"]["by_cause"] == {"completed": 1}, status["runs"]
assert status["epochs"]["spent"] == 2, status["epochs"]'
ls "$folder"/runs/*/best.pt

say "server: ends at SIGTERM with exit code 0"
kill "$server_pid"
server_pid=
wait %1
tail -n 1 "$folder/serve.log"
say "verified"
