"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="TOML file of the run", show_default=False)]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set optimizer.lr=1e-4")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder that holds run folders (instead of run.out)")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
