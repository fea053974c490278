"""python -m course: what a learner has done so far, as `python common.py` says it."""

from course.study.progress import main

if __name__ == "__main__":
    main()
