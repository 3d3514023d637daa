#!/usr/bin/env bash
# The whole pipeline on a data set: bash scripts/run_pipeline.sh DATASET SPLIT_BY [OUTPUT] [flags, see --help]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

exec python scripts/run_pipeline.py "$@"
