"""What a script would do with its options, without doing it."""

import argparse
from types import SimpleNamespace

import pytest

from common import lesson


class Caught(Exception):  # noqa: N818
    """Ends main() with what it was about to use."""


def parser_of(name: str) -> argparse.ArgumentParser:
    """The script's parser, as main() makes it."""

    def parse(self, *arguments):
        raise Caught(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(Caught) as caught:
            lesson(name).main()
    return caught.value.args[0]


def called(module, *arguments, defaults=(), **patches):
    """What main() of the lesson gives to narrate: options, names of the steps, the experiment if any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script", *defaults, *map(str, arguments)])
        patch.setattr(module, "narrate", lambda *parts: (_ for _ in ()).throw(Caught(*parts)))
        for name, value in patches.items():
            patch.setattr(*([name] if "." in name else [module, name]), value)
        with pytest.raises(Caught) as caught:
            module.main()
    options, _, steps, *experiment = caught.value.args
    return SimpleNamespace(options=options, experiment=experiment[0] if experiment else None,
                           steps=[step.__name__.removeprefix("step_") for step in steps])
