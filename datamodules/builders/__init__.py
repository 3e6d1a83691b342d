"""Generation and import of datasets."""
