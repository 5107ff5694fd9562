"""What reading a table may raise: messages about its keys, and what only a plugin's author can mend."""

from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError

from dinomx_core.errors import DinomxError


class AtKey(Exception):
    """A message about one key of the table being read."""

    def __init__(self, key: str, message: str):
        self.key = key
        super().__init__(message)


class UnknownKeys(Exception):
    """Keys that a table does not have, with those it has."""

    def __init__(self, keys: list[str], known: list[str]):
        self.keys, self.known = keys, known
        self.elsewhere: dict[str, str] = {}  # words on who has a key
        super().__init__(f"unknown keys {keys}")


TOLD = (AtKey, UnknownKeys, ForbiddenExtraKeysError, ValueError, TypeError, DinomxError)  # what users are told as it is


def unforeseen(error: BaseException, key: str = "") -> tuple[str, BaseException] | None:
    """The first error of a tree that is no message for users, with the option it is about ("": none)."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            if isinstance(error, KeyError) and error.args == (note.name,):
                return None  # an option that is missing
            key = f"{key}.{note.name}" if key else note.name
            break
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (unforeseen(inner, key) for inner in error.exceptions)), None)
    return None if isinstance(error, TOLD) else (key, error)
