#!/usr/bin/env bash
# From a fresh clone to figures, without any download but the packages: makes .venv and the toy world, then runs the
# whole pipeline on it. Everything lands in data/toy and output/toy.   bash scripts/quickstart.sh [--seed N]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source scripts/toy_settings.sh

seed=0
case "${1:-}" in
    "") ;;
    --seed)
        [[ "${2:-}" =~ ^[0-9]+$ ]] || fail "--seed needs a whole number"
        seed=$2
        ;;
    *) fail "unknown argument '$1'; usage: bash scripts/quickstart.sh [--seed N]" ;;
esac

output=$(toy_output "$seed")
need_environment requirements.txt
[ -f data/toy/refer/refcocog/instances.json ] || python -m dataset.toy --output data/toy
bash scripts/run_pipeline.sh refcocog umd "$output" "${TOY_DATA[@]}" --common "$TOY_COMMON" \
    --stage1 "$TOY_STAGE1 --seed $seed" --irnet "$TOY_IRNET --seed $seed" --stage2 "$TOY_STAGE2 --seed $seed"

python demo.py --img figs/demo.png --text 'the orange cross' --pretrain "$output/stage2/ckpt.pth" --output "$output/demo"
