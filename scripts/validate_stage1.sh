#!/usr/bin/env bash
# Evaluate a checkpoint of stage 1, by default the published one of RefCOCOg (umd):
#   bash scripts/validate_stage1.sh [DATASET SPLIT_BY [CHECKPOINT]] [flags of validate.py]
#   bash scripts/validate_stage1.sh refcoco unc --test_split val,testA,testB      `referit -` for ReferIt
#   bash scripts/validate_stage1.sh refcocog umd weights/refcocog_umd/ckpt.pth    your own training
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$REPOSITORY/scripts/stages.sh"

validate_stage 1 "$@"
