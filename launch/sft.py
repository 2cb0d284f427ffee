"""`deepspeed --num_gpus N launch/sft.py --config FILE`: the same function as `llama-gene sft --config FILE`, in N processes."""

from llama_gene.cli import script

if __name__ == "__main__":
    script("sft")
