"""What one process does of embedding: all of it into a file, or its share of the shards of a folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.builtin.manifest import pyarrow
from dinomx_core.errors import DataError, Stopped
from dinomx_core.planning.origin import Reading
from dinomx_core.planning.world import World
from dinomx_core.training.embed.folder import POOLED, About, EmbedFolder, check_folder, clear_drafts, write_whole
from dinomx_core.training.embed.images import Images, check_columns, find_images
from dinomx_core.training.embed.job import SHARD_SIZE, EmbedJob
from dinomx_core.training.embed.passes import Batch, Passes, digest_of
from dinomx_core.training.embed.pool import Pool
from dinomx_core.training.embed.tables import WRITERS, Columns, Frame, read_embeddings, size_of, write_parquet
from dinomx_core.training.embed.together import Tell, Together
from dinomx_core.training.model import Model
from dinomx_core.training.stopping import StopRequest
from dinomx_core.training.watch import NOW, Watch

KEPT = "whole shards are kept, and the same command goes on with the others"


@attrs.frozen
class Source:
    """What embeds: how the files become images that it was trained on, which is found quickly, and the model."""

    reading: Callable[[], Reading]
    model: Callable[[], Model]


def share(
    job: EmbedJob, source: Source, world: World | None, watch: Watch | None, progress: Tell | None
) -> dict[str, Any]:
    """Embed the images of a job, or this process's share of them. Returns counts, and whether all is "finished" now."""
    images = prepared(job, source, world)
    if job.is_file:
        return to_file(job, images, source.model(), progress)
    return to_folder(job, images, source.model(), world, watch, progress)


def prepared(job: EmbedJob, source: Source, world: World | None) -> Images:
    """The images of a job. Raises what can be refused without the model."""
    images = find_images(Path(job.data), job.path_column, source.reading())
    check_columns(images, job.pool, job.place.suffix == ".npz")
    if not job.is_file:
        pyarrow()
        check_folder(job.place, about_of(job, images), job.overwrite)
    if not job.checked and (world is None or world.rank == 0):
        images.check_files()
    return images


def about_of(job: EmbedJob, images: Images) -> About:
    """What a job's folder holds, as far as it is known without the model."""
    return About(job.source, "", job.data, images.digest, len(images), job.tokens, job.shard_size or SHARD_SIZE)


def to_file(job: EmbedJob, images: Images, model: Model, progress: Tell | None) -> dict[str, Any]:
    """Write one file. Returns counts; raises DataError when no image can be read."""
    faults: list[tuple[int, str]] = []
    together = Together(None, None, len(images), progress)
    parquet = job.place.suffix == ".parquet"
    pool = Pool(images, job.pool) if job.pool else None

    def frames() -> Iterator[Frame]:
        columns = None if pool else Columns(images.table(), parquet)
        for rows, embeddings in counted(passes.over(range(len(images)), faults), faults, together):
            if columns:
                yield columns.take(rows), embeddings
            elif pool:
                pool.add(rows, embeddings)
        if len(faults) == len(images):
            raise DataError(f"none of the {len(images)} images can be read; the first: {faults[0][1]}")
        if pool:
            yield pool.frame(parquet)

    clear_drafts(job.place)
    with Passes(model, images, job, None) as passes:
        shape = write_whole(job.place, lambda draft: WRITERS[job.place.suffix](draft, frames(), dict))
    pooled = told(pool, job.out) if pool else None
    texts = [*images.pictures.faults, *(text for _, text in faults)]
    return result(len(images) - len(faults), shape, texts, pooled)


def to_folder(
    job: EmbedJob,
    images: Images,
    model: Model,
    world: World | None,
    watch: Watch | None,
    progress: Tell | None,
) -> dict[str, Any]:
    """Write those shards of this process that are not there yet, and finish the folder where these were the last. Returns counts; raises
    Stopped when told to stop."""
    together = Together(world, watch, len(images), progress)
    passes = Passes(model, images, job, world)
    about = attrs.evolve(
        about_of(job, images), model=digest_of(model), channels=model.channels, batch_size=passes.batch_size
    )
    folder = EmbedFolder(job.place, about)
    if job.overwrite and not (world and world.attempt):  # what was started again goes on
        together.after_first(lambda: folder.open(overwrite=together.first))
    else:
        folder.open(overwrite=False)
    columns = Columns(images.table(), parquet=True)
    rank, size = (world.rank, world.size) if world else (0, 1)
    may_be_last = together.first
    with passes, StopRequest(0) as stop:
        for number in range(rank, folder.shards, size):
            rows = folder.rows(number)
            if folder.facts(number):
                together.count(len(rows))
                continue
            faults: list[tuple[int, str]] = []
            batches = heeded(counted(passes.over(rows, faults), faults, together), stop)
            folder.write(number, ((columns.take(found), embeddings) for found, embeddings in batches), faults)
            may_be_last = True
    return finish(folder, images, job.pool, may_be_last)


def counted(batches: Iterator[Batch], faults: list[tuple[int, str]], together: Together) -> Iterator[Batch]:
    """The same batches, counted once they are done, and then the images that cannot be read."""
    for batch in batches:
        together.count(len(batch[0]))
        yield batch
    together.count(len(faults))


def heeded(batches: Iterator[Batch], stop: StopRequest) -> Iterator[Batch]:
    """The same batches. Raises Stopped when told to stop."""
    for batch in batches:
        if reason := stop.reason:
            raise Stopped(f"{'at once' if reason == NOW else reason}: {KEPT}")
        yield batch


def finish(folder: EmbedFolder, images: Images, column: str, may_be_last: bool) -> dict[str, Any]:
    """Pool and write what was found, where all shards are there: of several processes that which wrote the last one does, or two that
    end together."""
    found = [folder.facts(number) for number in range(folder.shards)]
    facts = [one for one in found if one is not None]
    embedded = sum(one["images"] for one in facts)
    unreadable = [(row, text) for one in facts for row, text in one["unreadable"]]
    texts = [*images.pictures.faults, *(text for _, text in unreadable)]
    if len(facts) < folder.shards or not may_be_last:
        return result(embedded, (), texts, None, finished=False)
    if not embedded:
        raise DataError(f"none of the {len(images)} images can be read; the first: {texts[0]}")
    pooled = pool_shards(folder, images, column, {row for row, _ in unreadable}) if column else None
    shape = (embedded, *size_of(folder.part(0)))
    about = {"shards": folder.shards, "embedded": embedded, "shape": shape, "unreadable": texts}
    folder.write_about({**about, "pooled": pooled or folder.read_about().get("pooled")})
    return result(embedded, shape, texts, pooled)


def pool_shards(folder: EmbedFolder, images: Images, column: str, unreadable: set[int]) -> dict[str, Any]:
    """Write `pooled.parquet` from whole shards. Returns what there is to tell of it."""
    pool = Pool(images, column)
    for number in range(folder.shards):
        rows = [row for row in folder.rows(number) if row not in unreadable]
        first = 0
        for embeddings in read_embeddings(folder.part(number)):
            pool.add(rows[first : first + len(embeddings)], embeddings)
            first += len(embeddings)
    place = folder.path / POOLED
    write_whole(place, lambda draft: write_parquet(draft, iter([pool.frame(parquet=True)]), dict))
    return told(pool, str(place))


def told(pool: Pool, file: str) -> dict[str, Any]:
    """What there is to tell of a pool that was written."""
    groups = int((pool.count > 0).sum())
    return {"column": pool.column, "groups": groups, "file": file, "left_out": sorted(pool.differ)}


def result(
    images: int, shape: tuple[int, ...], unreadable: list[str], pooled: dict[str, Any] | None, finished: bool = True
) -> dict[str, Any]:
    """What `dinomx_core.embed` returns."""
    return {"images": images, "shape": shape, "unreadable": unreadable, "pooled": pooled, "finished": finished}
