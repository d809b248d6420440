#!/usr/bin/env bash
# A retriever and a ranker that learn from each other (AR2, arXiv 2110.03611):
#   recipes/small/ar2.sh QUESTIONS CORPUS OUT [ROUNDS] [MODEL]
# QUESTIONS: {"query": …, "pos": [text], "pos_ids": [id]} a line; CORPUS: what `trichrome mine --corpus` takes.
# Each round mines what the retriever finds now, trains the ranker on it, and the retriever towards the ranker.
# OUT/ROUND/retriever/model is the retriever after a round, for the dense mode.
set -euo pipefail
here=$(dirname "$0")
questions=$1 corpus=$2 out=$3 rounds=${4:-3} retriever=${5:-small}
ranker=$retriever
for ((round = 1; round <= rounds; round++)); do
  at=$out/$round
  mkdir -p "$at"
  trichrome mine "$questions" --corpus "$corpus" --out "$at/mined.jsonl" --model "$retriever" \
    --source dense:1-50 --relative-margin 0 --negatives 7
  trichrome train unified --config "$here/ar2-ranker.yaml" --model "$ranker" --data "$at/mined.jsonl" \
    --output "$at/ranker"
  ranker=$at/ranker/model
  trichrome score "$at/mined.jsonl" --out "$at/scored.jsonl" --teacher hybrid --weights 0,0,1 --model "$ranker"
  trichrome train contrastive --config "$here/ar2-retriever.yaml" --model "$retriever" \
    --data "$at/scored.jsonl" --output "$at/retriever"
  retriever=$at/retriever/model
done
echo "$retriever"
