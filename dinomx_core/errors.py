"""Errors a user can act on. Each says place, value and remedy; anything else that escapes is a bug and keeps its traceback."""

import attrs


class DinomxError(Exception):
    """Base of every error that the command line prints without a traceback."""

    exit_code = 1
    label = "error"
    alone = False  # whether only one of several processes raises it, which then tells it, whichever it is


@attrs.frozen
class Problem:
    """One thing wrong: where it stands, which key, what is wrong with it and what to do."""

    message: str
    key: str = ""
    place: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.message) if part)


class ConfigError(DinomxError):
    """A config that cannot be run. Holds every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class PluginError(DinomxError):
    """A component that is wanted but not installed, broken, or claimed twice."""

    exit_code = 2


class DinomxDeprecation(DeprecationWarning):
    """Something of the plugin API that will go, and what to use instead; told once, with the plugin that uses it."""


class DataError(DinomxError):
    """Data that cannot be read or used as the config asks; `key` is the option that names them, where one does."""

    exit_code = 2

    def __init__(self, message: str, key: str = ""):
        self.key = key
        super().__init__(message)


class OtherFamily(DataError):
    """Weights of a family that this backbone does not read; another may."""


class OtherChannels(DataError):
    """Weights made for `channels` channels, where the data have another number."""

    def __init__(self, message: str, key: str = "", channels: int = 0):
        self.channels = channels
        super().__init__(message, key)


UNREADABLE = (DataError, OSError, RuntimeError)  # what looking at a data set may raise because of the data


class TrainingError(DinomxError):
    """A run that cannot go on, such as one with a loss that is not finite."""

    exit_code = 3


class Stopped(DinomxError):
    """A run that was told to stop, and saved: nothing is lost, and `--resume` goes on with it."""

    exit_code = 4
    label = "stopped"
