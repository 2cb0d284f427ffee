#!/bin/sh
# The same as `llama-gene vocab --config`, one command after the other, so that each step can be looked at before the next:
#   vocab/by_steps.sh BASE DNA PROTEIN ENGLISH OUT      for example  vocab/by_steps.sh tokenizer.model genomes/ proteins/ articles.txt runs/by_steps
set -eu
base=${1:?BASE: a tokenizer.model, folder or hub id} dna=${2:?DNA: files or a folder} protein=${3:?PROTEIN: files or a folder}
english=${4:?ENGLISH: a text} out=${5:?OUT: a folder}
size=${SIZE:-30080}
llama-gene vocab train --kind dna --base "$base" --input "$dna" --size "$size" --out "$out/dna"
llama-gene vocab splice --base "$base" --pieces "$out/dna" --out "$out/with_dna"
llama-gene vocab report --tokenizer "$out/with_dna" --base "$base" --dna "$dna" --english "$english" --out "$out/with_dna.json"
llama-gene vocab train --kind protein --base "$out/with_dna" --input "$protein" --size "$size" --out "$out/protein"
llama-gene vocab splice --base "$out/with_dna" --pieces "$out/protein" --out "$out/tokenizer"
llama-gene vocab report --tokenizer "$out/tokenizer" --base "$base" --dna "$dna" --protein "$protein" --english "$english" --out "$out/report.json"
