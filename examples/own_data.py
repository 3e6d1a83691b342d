"""Arrays become a dataset, and a team learns from it.

The arrays come from a loop over an environment; yours come from wherever you recorded them.
"""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import minari
import numpy as np
from callbacks import Evaluation
from datamodules import OfflineDataModule
from minari.data_collector import EpisodeBuffer
from momalit import MOMAPPOModule, WorldModelModule

from own_environment import parallel_env


def record(episodes: int = 200) -> list[EpisodeBuffer]:
    """Records episodes of random actions: T actions and rewards, T + 1 observations each."""
    env, rng, buffers = parallel_env(), np.random.default_rng(0), []
    for number in range(episodes):
        observations, _ = env.reset(seed=number)
        history, joint_actions, rewards = [observations], [], []
        while env.agents:
            actions = {agent: rng.uniform(-1, 1, 1).astype(np.float32) for agent in env.agents}
            observations, reward, *_ = env.step(actions)
            history.append(observations)
            joint_actions.append(actions)
            rewards.append(reward["left"])  # one reward for the team
        last = np.arange(len(rewards)) == len(rewards) - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations={
                    agent: np.stack([step[agent] for step in history])
                    for agent in env.possible_agents
                },
                actions={
                    agent: np.stack([step[agent] for step in joint_actions])
                    for agent in env.possible_agents
                },
                rewards=np.array(rewards),
                terminations=np.zeros_like(last),  # the task itself never ends an episode
                truncations=last,  # the time limit does
            )
        )
    return buffers


def write(buffers: list[EpisodeBuffer], name: str = "meeting/own-v0") -> Path:
    """Writes a Minari dataset with one entry per agent in its observation and action spaces."""
    from gymnasium import spaces

    env = parallel_env()
    minari.create_dataset_from_buffers(
        name,
        buffer=buffers,
        observation_space=spaces.Dict(
            {agent: env.observation_space(agent) for agent in env.possible_agents}
        ),
        action_space=spaces.Dict(
            {agent: env.action_space(agent) for agent in env.possible_agents}
        ),
        algorithm_name="random",
        author="me",
        author_email="me@example.org",
        code_permalink="https://example.org",
        description="Two agents that move at random.",
    )
    return minari.storage.get_dataset_path(name)


def main() -> None:
    """Writes the dataset, then trains a world model and a team."""
    pl.seed_everything(0)
    data = OfflineDataModule(str(write(record())), env={"name": "own_environment:parallel_env"})

    model = WorldModelModule(data.spec, width=64, n_blocks=1, termination="never")
    trainer = pl.Trainer(
        max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint("world_model.ckpt")

    team = MOMAPPOModule(
        data.spec, world_model="world_model.ckpt", horizon=20, width=64, gru_size=64, lr=1e-3
    )
    evaluation = Evaluation(episodes=20)
    trainer = pl.Trainer(max_epochs=20, accelerator="cpu", logger=False, callbacks=[evaluation])
    trainer.fit(team, datamodule=data)
    print(f"return of the team: {trainer.callback_metrics['eval/return']:.1f}")  # noqa: T201
    print(f"mean of the data:   {data.returns.mean():.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
