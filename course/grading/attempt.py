"""The learner's file, run as a module."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from course.console.records import Finding
from course.grading.checking import what_happened


class Attempt:
    """The learner's file as a module, which run() fills.

    The module has the file's name, with underscores appended if another module already has that name: code
    that reads annotations, such as dataclasses, looks up the module by name.
    """

    def __init__(self, file: Path):
        name = file.stem
        while name in sys.modules:
            name += "_"
        spec = ModuleSpec(name, loader=None, origin=str(file))
        self.file, self.module = file, module_from_spec(spec)

    def run(self) -> Finding:
        """Run the file as a script: sys.argv holds only its name."""
        self.module.__file__ = str(self.file)
        sys.modules[self.module.__name__] = self.module
        arguments, sys.argv = sys.argv, [str(self.file)]
        try:
            code = compile(self.file.read_bytes(), str(self.file), "exec")
            exec(code, self.module.__dict__)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return what_happened(error)
        finally:
            sys.argv = arguments
        return Finding(True)
