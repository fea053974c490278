"""How the same record becomes a page: lesson pages, index, glossary, live pages."""
