"""The machinery of the course. No learner needs to read it."""
