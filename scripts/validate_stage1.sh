#!/usr/bin/env bash
# Figures of the stage 1 that train_stage1.sh trained; further flags are passed on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python validate.py --batch_size 1 --size 320 --dataset refcocog --splitBy umd --test_split val --max_query_len 20 \
    --output ./weights/refcocog_umd --resume --pretrain ckpt.pth --eval "$@"
