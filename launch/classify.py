"""`deepspeed --num_gpus N launch/classify.py --config FILE`: the same function as `llama-gene classify --config FILE`, in N processes."""

from llama_gene.cli import script

if __name__ == "__main__":
    script("classify")
