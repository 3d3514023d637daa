#!/usr/bin/env bash
# Photos and annotations into data/: bash scripts/download_data.sh [NAME ...] [--mirror URL], see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

exec python scripts/download.py data "$@"
