"""One stage, one file: a Config dataclass and run(config). The only place where the layers meet."""
