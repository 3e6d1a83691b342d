"""Studies: run, collect and compare a grid of training runs that one file describes."""
