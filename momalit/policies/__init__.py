"""Team policies and the modules that train them: PPO in a world model or in the real environment."""
