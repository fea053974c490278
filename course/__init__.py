"""The machinery of the course. No learner needs to read it; nothing in it is about Transformers."""
