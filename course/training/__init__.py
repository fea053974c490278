"""The engine, a run with its files, comparisons, processes, parts put into a model; lessons' measurements."""
