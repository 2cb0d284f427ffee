"""demo: the whole route on simulated genes, with known answers, no GPU and no network.

The genes and proteins are written by sequences/simulate.py, the English is the text that ships with Python; then `run` walks all
stages with launch/configs/demo/run.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_gene import runtime
from llama_gene.config import parse
from llama_gene.errors import MissingFileError

CONFIG = Path(__file__).resolve().parents[2] / "launch" / "configs" / "demo" / "run.yaml"


@dataclass
class Config:
    """The whole route in a few minutes."""

    output_dir: Path = Path("runs/demo")
    """Folder of the run."""
    config_file: Path = CONFIG
    """The run's YAML."""
    processes: int = 2
    """Processes of the continued pretraining."""
    seed: int = 0
    """Seed of the simulated data."""


def run(config: Config) -> Path:
    """Simulate, then run; return the run's folder."""
    from llama_gene.recipes import run as route
    from llama_gene.sequences.simulate import SimulationConfig, simulate

    if not config.config_file.is_file():
        raise MissingFileError(
            config.config_file, "the demo's YAML, which is part of the source tree", "Run the demo from a clone (make demo)"
        )
    log = runtime.get_logger()
    simulated = config.output_dir / route.SIMULATED_NAME
    settings = SimulationConfig(seed=config.seed)
    key = runtime.fingerprint([settings, runtime.file_hash(Path(simulate.__code__.co_filename))])
    if not (simulated / runtime.MANIFEST_NAME).is_file() or runtime.read_manifest(simulated).get("key") != key:
        log.info("== simulate: genomes, proteins and six tasks with known answers. This data is SIMULATED; no row comes from an organism")
        with runtime.whole_dir(simulated) as folder:
            facts = simulate(folder, settings)
            runtime.write_manifest(folder, "simulate", settings, key=key, facts=facts)
    arguments = ["--config", str(config.config_file), "--output_dir", str(config.output_dir), "--data_dir", str(simulated.resolve())]
    return route.run(parse("run", route.Config, [*arguments, "--processes", str(config.processes)]))
