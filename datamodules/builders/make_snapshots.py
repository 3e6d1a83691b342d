"""Makes the shipped snapshots: ``python -m datamodules.builders.make_snapshots CHECKPOINTS TASK``.

CHECKPOINTS is a directory with checkpoints saved during an online MAPPO run, for example by::

    python main.py fit --config mappo/ant.yaml --trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint \
        --trainer.callbacks.dirpath=CHECKPOINTS --trainer.callbacks.save_top_k=-1 \
        --trainer.callbacks.every_n_epochs=20 --trainer.callbacks.save_on_train_epoch_end=true
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from datamodules.builders.collect import versions
from datamodules.builders.snapshots import POLICY_DIRECTORY, save_snapshot
from momalit.envs import VectorTeamEnv
from momalit.policies.mappo import MAPPOModule
from momalit.policies.rollout import play_episodes
from momalit.training.checkpoints import load_module


def main() -> None:
    """Selects checkpoints evenly spaced over training, evaluates them, and writes them as snapshots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("task")
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=10, help="evaluation episodes per snapshot")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    paths = sorted(given.checkpoints.glob("*.ckpt"), key=lambda path: int(load_module(path, MAPPOModule).steps_taken))
    selected = torch.linspace(0, len(paths) - 1, min(given.number, len(paths))).round().int().tolist()
    directory = POLICY_DIRECTORY / given.task
    for old in directory.glob("*.safetensors"):
        old.unlink()
    with ProcessPoolExecutor(given.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        chosen = [paths[i] for i in selected]
        for number, metadata in enumerate(pool.map(_evaluate, chosen, [given.episodes] * len(chosen))):
            module = load_module(chosen[number], MAPPOModule)
            save_snapshot(module.actor, directory / f"{number:02d}.safetensors", metadata)
            sys.stdout.write(f"{number:02d} {metadata['steps']:>9} {metadata['return_sampled']:8.1f}\n")


def _evaluate(path: Path, episodes: int) -> dict[str, Any]:
    """Evaluates a checkpoint and returns the metadata of its snapshot."""
    module = load_module(path, MAPPOModule).eval()
    network = {key: module.hparams[key] for key in ("width", "gru_size", "share_parameters", "initial_std", "min_std")}
    env = VectorTeamEnv(module.spec, episodes)
    seeds = torch.randint(2**30, generator=torch.Generator().manual_seed(7), size=(episodes,)).tolist()
    returns = {}
    for name, generator in (("deterministic", None), ("sampled", torch.Generator().manual_seed(0))):
        returns[f"return_{name}"] = round(float(play_episodes(env, module.actor, seeds, generator).mean()), 1)
    env.close()
    metadata = {"env": module.spec.env, "network": network, "steps": int(module.steps_taken)}
    return {**metadata, **returns, "episodes": episodes, "versions": versions()}


if __name__ == "__main__":
    main()
