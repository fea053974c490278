"""The engine, a run with its files, comparisons, processes, and parts swapped into a model."""
