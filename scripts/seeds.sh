#!/usr/bin/env bash
# The toy world's pipeline with several seeds, then each figure's mean and range:   bash scripts/seeds.sh [SEED ...]
# (0 1 2). Seeds that have been run are not run again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source scripts/toy_settings.sh

[ $# -gt 0 ] || set -- 0 1 2
results=()
for seed in "$@"; do
    bash scripts/quickstart.sh --seed "$seed" || fail "the run with seed $seed failed; see above"
    results+=("$(toy_output "$seed")/results.json")
done
python scripts/seeds_table.py "${results[@]}"
