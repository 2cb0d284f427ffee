#!/bin/sh
# Splice DNA and protein pieces behind a base tokenizer:  vocab/splice.sh llama2 [--key value ...]
# NAME is a file of vocab/configs; every key of `llama-gene vocab --help` may follow.
set -eu
name=${1:?"NAME of a config in vocab/configs (llama2, llama3, small, english_base, dnahlm)"}
shift
exec llama-gene vocab --config "$(dirname "$0")/configs/$name.yaml" "$@"
