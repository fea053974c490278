"""Statements put to the test, and the learner's own code: template, graded process, report."""
