#!/bin/sh
# An embedded server's key travels as a file (AMC_KEY_FILE), never on a command line or in an image.
set -eu
if [ -n "${AMC_KEY_FILE:-}" ]; then
    WANDB_API_KEY="$(cat "$AMC_KEY_FILE")"
    export WANDB_API_KEY
fi
exec "$@"
