"""Makes the snapshots that ship: ``python -m datamodules.builders.make_snapshots CHECKPOINTS TASK``.

CHECKPOINTS is a folder of an online MAPPO run's checkpoints, saved along the way, as by::

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
from datamodules.builders.snapshots import FOLDER, save_snapshot
from momalit.envs import VectorTeamEnv
from momalit.policies.mappo import MAPPOModule
from momalit.policies.rollout import play_episodes
from momalit.training.checkpoints import load_module


def main() -> None:
    """Scores checkpoints, picks some from the whole of the training, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("task")
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=10, help="to score every snapshot by")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    paths = sorted(given.checkpoints.glob("*.ckpt"), key=lambda path: int(load_module(path, MAPPOModule).steps_taken))
    wanted = torch.linspace(0, len(paths) - 1, min(given.number, len(paths))).round().int().tolist()
    folder = FOLDER / given.task
    for old in folder.glob("*.safetensors"):
        old.unlink()
    with ProcessPoolExecutor(given.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        chosen = [paths[i] for i in wanted]
        for number, facts in enumerate(pool.map(_score, chosen, [given.episodes] * len(chosen))):
            module = load_module(chosen[number], MAPPOModule)
            save_snapshot(module.actor, folder / f"{number:02d}.safetensors", facts)
            sys.stdout.write(f"{number:02d} {facts['steps']:>9} {facts['return_sampled']:8.1f}\n")


def _score(path: Path, episodes: int) -> dict[str, Any]:
    module = load_module(path, MAPPOModule).eval()
    network = {key: module.hparams[key] for key in ("width", "gru_size", "share_parameters", "initial_std", "min_std")}
    env = VectorTeamEnv(module.spec, episodes)
    seeds = torch.randint(2**30, generator=torch.Generator().manual_seed(7), size=(episodes,)).tolist()
    returns = {}
    for name, generator in (("deterministic", None), ("sampled", torch.Generator().manual_seed(0))):
        returns[f"return_{name}"] = round(float(play_episodes(env, module.actor, seeds, generator).mean()), 1)
    env.close()
    facts = {"env": module.spec.env, "network": network, "steps": int(module.steps_taken)}
    return {**facts, **returns, "episodes": episodes, "versions": versions()}


if __name__ == "__main__":
    main()
