"""Published weights on the course's own parts: reading a folder, and which number goes where."""
