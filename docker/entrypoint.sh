#!/bin/sh
# Reads the embedded server's key from a file (AMC_KEY_FILE), so that it is on no command line and in no image.
set -eu
if [ -n "${AMC_KEY_FILE:-}" ]; then
    WANDB_API_KEY="$(cat "$AMC_KEY_FILE")"
    export WANDB_API_KEY
fi
exec "$@"
