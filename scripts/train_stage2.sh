#!/usr/bin/env bash
# Stage 2 on RefCOCOg (umd) with the published settings; further flags are passed on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python train_stage2.py --batch_size 48 --size 320 --dataset refcocog --splitBy umd --test_split val \
    --bert_tokenizer clip --backbone clip-RN50 --max_query_len 20 --epoch 15 \
    --pseudo_path output/refcocog_umd/ins_seg --output ./weights/stage2/pseudo_refcocog_umd "$@"
