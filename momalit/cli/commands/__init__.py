"""The commands that do not train: collect, import, study, cross-play and report."""
