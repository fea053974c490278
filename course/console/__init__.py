"""Console output of steps, command-line options, files, start-up, measurements."""
