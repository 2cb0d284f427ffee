"""`deepspeed --num_gpus N launch/evaluate.py --config FILE`: the same function as `llama-gene evaluate --config FILE`, in N processes."""

from llama_gene.cli import script

if __name__ == "__main__":
    script("evaluate")
