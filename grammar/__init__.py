"""The English and French sentences that lesson 7 learns from: tables of words and rules that draw pairs."""
