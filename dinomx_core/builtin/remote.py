"""Files that lie elsewhere ("s3://bucket/a.png", any protocol of fsspec) as local files, in a bounded cache. No torch."""

import errno
import glob
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dinomx_core.builtin import cache
from dinomx_core.errors import DataError

URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::.*://)")  # two letters at least: "C:" is a drive
HERE = re.compile(r"(?:file|local)://")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
LOOK_AGAIN = 600.0  # seconds for which an object is taken to be what it was
REMEMBERED = 100_000  # objects whose state a process keeps
VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "sha256",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "http": "aiohttp", "https": "aiohttp", "hf": "huggingface_hub", "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol",
}  # fmt: skip
LOGIN = {
    "s3fs": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gcsfs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "adlfs": "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "huggingface_hub": "set HF_TOKEN",
}
_known: dict[
    str, tuple[float, str]
] = {}  # URL -> when it was looked up, and its state then; no lock, which a fork could copy held


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file by a protocol; "file://" counts."""
    return URL.match(os.fspath(path)) is not None


def local(url: str | os.PathLike[str], key: str = "path") -> Path:
    """A file on this machine with what the path or URL names; plain paths are handed back as they are, whether there is a file or not.
    The file of a URL may be taken away once it has not been asked for in `cache.GRACE` seconds: open it before. Raises DataError, about
    the option `key`, where it cannot be fetched."""
    text = os.fspath(url)
    if not is_url(text):
        return Path(url)
    if here := HERE.match(text):
        return Path(text[here.end() :])
    seen = _known.get(text)
    if seen and time.monotonic() - seen[0] < LOOK_AGAIN and (file := cache.find(seen[1], text)):
        return file
    fs, path = filesystem(text, key)
    state, size = looked_up(fs, path, text, key)
    remember(text, state)
    return cache.find(state, text) or cache.fetch(
        state, text, lambda draft: download(fs, path, draft, text, size, key), key
    )


def remember(url: str, state: str) -> None:
    """Keep what was found out about an object for a while."""
    if len(_known) >= REMEMBERED:
        _known.clear()
    _known[url] = (time.monotonic(), state)


def looked_up(fs: Any, path: str, url: str, key: str) -> tuple[str, int | None]:
    """What stands for an object as it is now (its URL, size and version), and its size in bytes where that is known."""
    try:
        info = fs.info(path)
    except Exception as error:  # each protocol raises errors of its own
        raise explained(error, url, key) from None
    if info.get("type") == "directory":
        raise DataError(f"{url}: is a folder, not a file", key)
    version = [str(info[name]) for name in ("size", *VERSIONS) if info.get(name) is not None]
    return cache.state_of(url, " ".join(version)), info.get("size")


def stamp(url: str | os.PathLike[str], key: str = "path") -> tuple[int, str]:
    """Size in bytes of a file or URL, and what changes when it does. Raises DataError where there is none."""
    file = Path(url) if not is_url(url) else local(url) if HERE.match(os.fspath(url)) else None
    if file is None:
        state, size = looked_up(*filesystem(os.fspath(url), key), os.fspath(url), key)
        remember(os.fspath(url), state)
        return size or 0, state
    try:
        found = os.stat(file)
    except OSError as error:
        raise DataError(f"{url}: {error.strerror or error}", key) from None
    return found.st_size, str(found.st_mtime_ns)


def download(fs: Any, path: str, draft: Path, url: str, size: int | None, key: str) -> None:
    """Fetch an object. Raises DataError unless all of it came."""
    try:
        fs.get_file(path, str(draft))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise  # the cache's own trouble
        raise explained(error, url, key) from None
    except Exception as error:
        raise explained(error, url, key) from None
    if size is not None and draft.stat().st_size != size:
        raise DataError(f"{url}: {draft.stat().st_size} of {size} bytes came; try again", key)


def filesystem(url: str, key: str = "path") -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Raises DataError where a package is missing."""
    try:
        import fsspec
    except ImportError:
        raise DataError(f"{url}: needs fsspec, which is not installed: pip install fsspec", key) from None
    try:
        return fsspec.core.url_to_fs(url)
    except Exception as error:
        raise explained(error, url, key) from None


def explained(error: Exception, url: str, key: str) -> DataError:
    """What went wrong with a URL, and how it is mended."""
    package = PACKAGES.get(protocol(url), "")
    told = str(error).strip().partition("\n")[0]
    cause = f"{type(error).__name__}: {told}" if told else type(error).__name__
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, ImportError):
        what = package or "a package for it"
        message = f"needs {what}, which is not installed: pip install {package or 'the package that it names'} ({told})"
    elif isinstance(error, ValueError) and told.startswith("Protocol not known"):
        message = (
            f'fsspec knows no protocol "{protocol(url)}://"; those that it knows are in fsspec.available_protocols()'
        )
    elif isinstance(error, FileNotFoundError):
        message = "there is no such object; check the name, and that your login may see it"
    elif isinstance(error, PermissionError) or any("Credential" in kind for kind in kinds):
        message = f"no access ({cause}); {LOGIN.get(package, 'give the login that its storage asks for')}"
    elif isinstance(error, (ConnectionError, TimeoutError)) or any(
        "Connect" in kind or "Timeout" in kind for kind in kinds
    ):
        message = f"cannot be reached ({cause}); check the network, or copy the data to a folder of this machine"
    else:
        message = f"cannot be read ({cause})"
    return DataError(f"{url}: {message}", key)


def protocol(url: str) -> str:
    """The protocol by which data travel: of "simplecache::s3://bucket" s3."""
    return url.rpartition("::")[2].partition("://")[0].lower()


def exists(url: str | os.PathLike[str], key: str = "path") -> bool:
    """Whether there is a file or folder. Raises DataError where that cannot be found out."""
    if not is_url(url) or HERE.match(os.fspath(url)):
        return local(url).exists()
    fs, path = filesystem(os.fspath(url), key)
    try:
        return fs.exists(path)
    except Exception as error:
        raise explained(error, os.fspath(url), key) from None


def listing(pattern: str, suffixes: Sequence[str], key: str = "path") -> list[str]:
    """The files that a folder, a glob or brace pattern ("shards/{000..127}.tar"), or a file's own name means, sorted within each
    pattern. In folders those of `suffixes` (in lower case), sub-folders included, hidden ones left out. A file that is named in full
    is not looked for. Raises DataError where a folder or pattern has none."""
    found = []
    for name in braced(os.path.expanduser(pattern) if not is_url(pattern) else pattern):
        some = files_of(str(local(name)) if HERE.match(name) else name, tuple(suffixes), key)
        if not some:
            what = "matches no file" if glob.has_magic(name) else f"holds no files of {', '.join(suffixes)}"
            raise DataError(f'"{name}" {what}', key)
        found += some
    return found


def files_of(name: str, suffixes: tuple[str, ...], key: str) -> list[str]:
    """The files of one name without braces."""
    if is_url(name):
        return remote_files(name, suffixes, key)
    if glob.has_magic(name) and not os.path.exists(name):
        return sorted(file for file in glob.glob(name, recursive=True) if os.path.isfile(file))
    if not os.path.isdir(name):
        return [name]
    walked = ((place, file) for place, _, files in os.walk(name, followlinks=True) for file in files)
    return sorted(
        os.path.join(place, file)
        for place, file in walked
        if file.lower().endswith(suffixes) and not hidden(os.path.relpath(os.path.join(place, file), name))
    )


def remote_files(url: str, suffixes: tuple[str, ...], key: str) -> list[str]:
    """The same of a URL; a name that ends as files do is not looked up."""
    if not glob.has_magic(url) and url.lower().endswith(suffixes):
        return [url]
    fs, path = filesystem(url, key)
    try:
        if glob.has_magic(url):
            return sorted(fs.unstrip_protocol(file) for file in fs.glob(path))
        if not fs.exists(path):
            raise FileNotFoundError(url)
        if fs.isfile(path):
            return [url]
        inside = [file for file in fs.find(path) if not hidden(file[len(path) :].lstrip("/"))]
        return sorted(fs.unstrip_protocol(file) for file in inside if file.lower().endswith(suffixes))
    except Exception as error:
        raise explained(error, url, key) from None


def hidden(path: str) -> bool:
    """Whether a part of a relative path begins with a dot."""
    return any(part.startswith(".") for part in path.replace(os.sep, "/").split("/"))


def braced(pattern: str) -> Iterator[str]:
    """What the braces of a pattern stand for: "{000..127}" numbers as wide as the first, "{a,b}" words; others stay as they are."""
    choices = []
    for number, part in enumerate(BRACES.split(pattern)):
        if number % 2 == 0:
            choices.append([part])
        elif span := RANGE.fullmatch(part):
            first, last = int(span[1]), int(span[2])
            choices.append([f"{n:0{len(span[1])}}" for n in range(first, last + 1)])
        else:
            choices.append(part.split(",") if "," in part else [f"{{{part}}}"])
    yield from map("".join, itertools.product(*choices))
