#!/usr/bin/env bash
# Published checkpoints into weights/: bash scripts/download_weights.sh [NAME ...] --mirror URL, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

exec python scripts/download.py weights "$@"
