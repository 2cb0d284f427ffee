"""From adapter to one checked model folder: merge, compare, write, verify, describe."""
