"""How a step's record becomes text on a terminal; options, files, start-up, measuring."""
