"""HTML pages made from the records of steps: lesson pages, index, glossary, live pages."""
