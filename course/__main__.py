"""python -m course: print the learner's progress, as `python common.py` does."""

from course.study.progress import main

if __name__ == "__main__":
    main()
