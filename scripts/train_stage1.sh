#!/usr/bin/env bash
# Stage 1 on RefCOCOg (umd) with the published settings; further flags are passed on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python train_stage1.py --batch_size 48 --size 320 --dataset refcocog --splitBy umd --test_split val --epoch 15 \
    --backbone clip-RN50 --max_query_len 20 --negative_samples 3 \
    --output ./weights/refcocog_umd --board_folder ./output/board "$@"
