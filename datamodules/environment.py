"""A data module without data. It names the environment for online training."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from datamodules.module_loaders import ModuleLoaders
from momalit.core.team import TeamSpec
from momalit.envs import make_env, team_spec


class EnvironmentDataModule(ModuleLoaders):
    """The data module of algorithms that learn online, in the real environment.

    Args:
        env: name of the task: a built-in one or ``package.module:callable``.
        settings: the environment's keyword arguments.

    Raises:
        UserError: the name or a setting is unknown.
    """

    def __init__(self, env: str, settings: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.env, self.settings = env, dict(settings or {})
        self._spec: TeamSpec | None = None

    @property
    def spec(self) -> TeamSpec:
        """The team's specification."""
        if self._spec is None:
            env = make_env(self.env, **self.settings)
            self._spec = team_spec(env, self.env, self.settings)
            env.close()
        return self._spec

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the specification, which includes the settings."""
        return hashlib.sha256(json.dumps(self.spec.to_dict(), sort_keys=True).encode()).hexdigest()
