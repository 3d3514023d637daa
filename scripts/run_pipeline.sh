#!/usr/bin/env bash
# Run the whole pipeline on a data set: bash scripts/run_pipeline.sh DATASET SPLIT_BY [OUTPUT] [flags], see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

exec python "$REPOSITORY/scripts/run_pipeline.py" "$@"
