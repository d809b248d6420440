#!/usr/bin/env bash
# Hard negatives for the runs in this folder: recipes/small/mine.sh DIR [MODEL], DIR with the training sets as
# NAME.jsonl.gz (docs/small.md names them), MODEL the encoder that mines. Writes mined/.
set -euo pipefail
dir=$1
model=${2:-runs/small-heads}
files() { for name in "$@"; do echo "$dir/$name.jsonl.gz"; done; }
trichrome mine $(files jaquad-train pquad-val jsquad-valid iapp-train drcd-dev cmrc-trial amqa-train arcd-train \
  faquad-train heq-val wordnet) --model "$model" --out mined/qa --source dense:5-120 --negatives 5 \
  --relative-margin 0.97 --max-rows 1000 --max-candidates 2500 --max-tokens 160 --without eu,et,el
trichrome mine $(files ddtp lohelp gnome man) --model "$model" --out mined/docs --source dense:5-120 \
  --negatives 5 --relative-margin 0.97 --max-rows 130 --max-candidates 350 --within-language --max-tokens 160 \
  --without eu,et,el
trichrome mine $(files udhr bible) --model "$model" --out mined/bitext --source random:20 --judge none \
  --relative-margin 0 --pair-tags --within-language --max-rows 4 --max-candidates 10 --negatives 4 \
  --without eu,et,el
