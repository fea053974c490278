"""What is said about the lessons: one file per lesson, the quiz, and the progress."""
