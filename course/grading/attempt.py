"""The learner's file, run as a module."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from course.console.records import Finding
from course.grading.checking import what_happened


class Attempt:
    """The learner's file as a module, which run() fills."""

    def __init__(self, file: Path):
        spec = ModuleSpec(file.stem, loader=None, origin=str(file))
        self.file, self.module = file, module_from_spec(spec)

    def run(self) -> Finding:
        self.module.__file__ = str(self.file)
        sys.modules.setdefault(self.file.stem, self.module)
        try:
            code = compile(self.file.read_bytes(), str(self.file), "exec")
            exec(code, self.module.__dict__)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return what_happened(error)
        return Finding(True)
