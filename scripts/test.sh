#!/usr/bin/env bash
# Lint and tests, in the environment that this script makes: bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ "${1:-}" != --help ] || { usage && exit; }
cd "$REPOSITORY"
need_environment requirements.txt requirements-test.txt
threads_wait_passively
# Keep the memory of large tensors for the next ones: clearing fresh pages took a third of the time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=536870912

ruff check .
ruff format --check .
python -m pytest "$@"
