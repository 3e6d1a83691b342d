"""Studies: a grid of runs described in one file, run, collected and compared."""
