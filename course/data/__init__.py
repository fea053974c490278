"""Small data sets, generated or read from files: digits, toys, sentence pairs."""
