"""What is asked for when images are embedded, and what of it is refused before anything is read. No torch."""

from pathlib import Path

import attrs

from dinomx_core.errors import DataError
from dinomx_core.planning.world import World

TOKENS = ("cls", "patch-mean", "patches")
FILES = (".npz", ".parquet")
SHARD_SIZE = 10_000


@attrs.frozen
class EmbedJob:
    """Embed images: `source` is a model, `data` a folder or a manifest, `out` a file or a folder of shards, as the user names them.

    batch_size, shard_size: 0 where they are left to this program. pool: a column, or "". checked: whether whoever started this process
    has looked for the manifest's files.
    """

    source: str
    data: str
    out: str
    tokens: str = "cls"
    batch_size: int = 0
    shard_size: int = 0
    overwrite: bool = False
    path_column: str = ""
    pool: str = ""
    checked: bool = False

    @property
    def place(self) -> Path:
        """Where to write."""
        return Path(self.out)

    @property
    def is_file(self) -> bool:
        """Whether all goes into one file."""
        return self.place.suffix in FILES

    def check(self, processes: int, world: World | None) -> None:
        """Raise DataError for what cannot be done, whatever the data are."""
        out = self.place
        if self.tokens not in TOKENS:
            raise DataError(f'tokens: expected one of {", ".join(TOKENS)}, got "{self.tokens}"')
        if self.pool and self.tokens == "patches":
            raise DataError(
                "pool: patches of different images have no mean of their own; choose --tokens cls or patch-mean"
            )
        if processes > 1 and world:
            raise DataError(f"processes: {world.starter} has started {world.size} of them already; leave it out")
        if self.is_file:
            self._check_file(processes, world)
        elif out.suffix and not out.is_dir():
            raise DataError(
                f"{out}: expected a name that ends with {' or '.join(FILES)}, or a folder's, without a suffix"
            )
        elif out.exists() and not out.is_dir():
            raise DataError(f"{out}: is a file; name a folder, or a file that ends with {' or '.join(FILES)}")

    def _check_file(self, processes: int, world: World | None) -> None:
        out = self.place
        if out.is_dir():
            raise DataError(f"{out}: is a folder; name a file in it")
        if not out.absolute().parent.is_dir():
            raise DataError(f"{out.absolute().parent}: there is no such folder to write to")
        instead = f"give --out a folder, such as {out.with_suffix('')}"
        if processes > 1 or world:
            raise DataError(f"processes: {out} is one file, which one process writes; {instead}")
        if self.shard_size:
            raise DataError(f"shard_size: {out} is one file, which has no shards; {instead}")
