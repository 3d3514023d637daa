#!/usr/bin/env bash
# From a fresh clone to metrics: make .venv and the toy world, run the whole pipeline on it, draw what it found.
#   bash scripts/quickstart.sh [--seed N]
# Nothing but Python packages is downloaded; everything goes to data/toy and output/toy.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/toy_settings.sh"

seed=0
case "$*" in
    "") ;;
    --help) usage && exit ;;
    "--seed "*) [[ $# = 2 && $2 =~ ^[0-9]+$ ]] && seed=$2 || fail "--seed needs a whole number" ;;
    *) fail "unknown argument '$1'; usage: bash scripts/quickstart.sh [--seed N]" ;;
esac

output=$(toy_output "$seed")
need_environment requirements.txt
[ -f data/toy/refer/refcocog/instances.json ] || run_module toy --output data/toy --seed "$TOY_WORLD"
bash "$REPOSITORY/scripts/run_pipeline.sh" refcocog umd "$output" "${TOY_DATA[@]}" --common "$TOY_COMMON" \
    --stage1 "$TOY_STAGE1 --seed $seed" --irnet "$TOY_IRNET --seed $seed" --stage2 "$TOY_STAGE2 --seed $seed"

python "$REPOSITORY/scripts/pipeline_picture.py" --dataset refcocog --splitBy umd --refer_data_root data/toy \
    --output "$output" --picture "$output/pipeline.png"
python "$REPOSITORY/demo.py" --img "$REPOSITORY/figs/demo.png" --text 'the orange cross' \
    --pretrain "$output/stage2/ckpt.pth" --output "$output/demo"
