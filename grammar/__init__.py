"""The English and French sentences that lesson 8 learns from: tables of words and rules that draw pairs."""
