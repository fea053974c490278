"""Testing statements, and grading the learner's own code: template, process, report."""
