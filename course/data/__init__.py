"""Digits, toys, sentence pairs: small data, drawn or read."""
