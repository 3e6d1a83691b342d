"""The world model: an ensemble dynamics model, its training, diagnostics and use as an environment."""
