"""Options of data sets that say what labels are. No torch."""

from typing import Any

from dinomx_core.declare.values import not_empty, option


def label_kind() -> Any:
    """The option of data sets that says what labels are."""
    return option(
        "class",
        'what a label is: "class"; "classes": several of them or none, such as "cyst; oedema" or a list; "number": an age, a score',
    )


def separator() -> Any:
    """The option of data sets that says how several classes are written in one text."""
    return option(
        ";",
        "what stands between classes in a text; alone it means none of them, while an image without a text has no label",
        check=not_empty('name a mark, such as ";"'),
    )
