"""Lists of images in CSV, JSON lines and Parquet files."""

import datetime

import pytest

from dinomx_core import DataError
from dinomx_core.builtin.manifest import check_files, is_manifest, numbered, plain, read_manifest


def written(folder, name, text):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def said(file, column="path"):
    with pytest.raises(DataError) as caught:
        read_manifest(file, column)
    return str(caught.value).replace(f"{file}: ", "", 1)


def test_csv_values_stay_as_they_are_written(tmp_path):
    text = '\ufeffpath,patient,note\r\na.png,007,"two\nlines, é"\r\n\r\n/b/b.png,,x\r\n'
    found = read_manifest(written(tmp_path, "m.CSV", text))
    assert found.paths == ("a.png", "/b/b.png")
    assert found.columns == {"patient": ["007", None], "note": ["two\nlines, é", "x"]}
    assert (found.place(0), str(found.place(1))) == (tmp_path / "a.png", "/b/b.png")
    assert found.where([0]) == "line 2" and found.where([0, 1]) == "lines 2, 5"
    assert found.where([0] * 7) == "lines 2, 2, 2, 2, 2 and 2 more"


def test_jsonl_keeps_types_and_rows_may_leave_values_out(tmp_path):
    text = '{"file": "a.png", "age": 4, "ok": true}\n\n{"file": "b.png", "age": 4.5, "box": [1, 2]}\n{"file": "c.png", "age": null}\n'
    found = read_manifest(written(tmp_path, "m.jsonl", text), "file")
    assert found.paths == ("a.png", "b.png", "c.png")
    assert found.columns == {"age": [4, 4.5, None], "ok": [True, None, None], "box": [None, [1, 2], None]}
    assert found.numbers == [1, 3, 4]
    assert list(numbered(found.columns["age"])) == [0, 1, -1] and list(numbered([[1], [2], [1]])) == [0, 1, 0]
    assert list(numbered([float("nan"), 1.0, 1.0])) == [-1, 0, 0]


def test_parquet_columns_stay_pyarrows(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    day = datetime.date(2020, 2, 2)
    table = {"path": ["a.png", "b.png"], "day": [day, None], "site": pa.array(["x", "y"]).dictionary_encode()}
    parquet.write_table(pa.table(table), tmp_path / "m.parquet")
    found = read_manifest(tmp_path / "m.parquet")
    assert found.paths == ("a.png", "b.png") and plain(found.columns["day"]) == [day, None]
    assert found.columns["day"].type == pa.date32() and pa.types.is_dictionary(found.columns["site"].type)
    assert found.where([1]) == "row 2"


def test_the_digest_stands_for_the_content_and_the_column(tmp_path):
    one = written(tmp_path, "a.csv", "path,other\na.png,b.png\n")
    same = written(tmp_path, "b.csv", "path,other\na.png,b.png\n")
    third = written(tmp_path, "c.csv", "path,other\na.png,c.png\n")
    assert read_manifest(one).digest == read_manifest(same).digest
    assert len({read_manifest(one).digest, read_manifest(third).digest, read_manifest(one, "other").digest}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,age\na.png,3\n", 'has no column "path" of the images\' paths; its columns are "file", "age"'),
        ("", 'has no column "path" of the images\' paths; its columns are none'),
        ("path,age\n", "has no rows"),
        ("path,age,age\na.png,3,4\n", 'has the column "age" more than once; rename one of them'),
        ("path,\na.png,3\n", "column 2 has no name; give it one or leave it out"),
        ("path,age\na.png,3\nb.png\n", "line 3 has 1 values for 2 columns"),
        ("path;age\na.png;3\n", 'its first line "path;age" has no comma; separate the columns by commas'),
        ("path,age\na.png,3\n,4\n", 'column "path" holds no path in line 3'),
        ('path,age\n"a.png,3\n', "line 2 cannot be read as CSV: unexpected end of data"),
    ],
)
def test_csv_that_cannot_be_used_is_refused_with_its_line(tmp_path, text, message):
    assert said(written(tmp_path, "m.csv", text)) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file": "a.png"}\n', 'has no column "path" of the images\' paths; its columns are "file"'),
        ("\n", 'has no column "path" of the images\' paths; its columns are none'),
        ('{"path": "a"}\n{"path": "b", "n": 1, "n": 2}\n', 'line 2 has the column "n" more than once; rename one of them'),
        ('{"path": "a"}\n{"path"\n', "line 2 is no JSON: Expecting ':' delimiter, at character 8"),
        ('["a.png"]\n', 'line 1 is no object such as {"path": "a.png"}'),
        ('{"path": "a", "n": 1}\n{"path": "b", "n": "x"}\n', 'column "n" holds numbers (line 1) and texts (line 2); give it one type'),
        ('{"path": "a"}\n{"path": 3}\n', 'column "path" holds texts (line 1) and numbers (line 2); give it one type'),
        ('{"path": "a"}\n{"n": 3}\n', 'column "path" holds no path in line 2'),
    ],
)  # fmt: skip
def test_jsonl_that_cannot_be_used_is_refused_with_its_line(tmp_path, text, message):
    assert said(written(tmp_path, "m.jsonl", text)) == message


def test_parquet_that_cannot_be_used_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = written(tmp_path, "m.parquet", "no parquet")
    assert said(file).startswith("cannot be read as Parquet: ")
    parquet.write_table(pa.table([["a"], [1], [2]], names=["path", "n", "n"]), file)
    assert said(file) == 'has the column "n" more than once; rename one of them'
    parquet.write_table(pa.table({"path": [1, 2]}), file)
    assert said(file) == 'column "path" holds no path in rows 1, 2'
    parquet.write_table(pa.table({"path": pa.array([], pa.string())}), file)
    assert said(file) == "has no rows"


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(DataError, match='there is no file "'):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes("path\nä.png\n".encode("latin-1"))
    assert said(tmp_path / "m.csv").startswith("is not UTF-8 text (")
    assert not is_manifest(tmp_path / "m.txt")
    (tmp_path / "folder.csv").mkdir()
    assert is_manifest(tmp_path / "m.csv") and not is_manifest(tmp_path / "folder.csv")


def test_images_that_are_not_there_are_named_with_their_lines(tmp_path):
    (tmp_path / "a.png").touch()
    check_files(read_manifest(written(tmp_path, "m.csv", f"path\na.png\n{tmp_path}/a.png\n")))
    manifest = read_manifest(written(tmp_path, "m.csv", "path\na.png\n" + "".join(f"{n}.png\n" for n in range(7))))
    with pytest.raises(DataError) as caught:
        check_files(manifest)
    assert str(caught.value) == (
        f"{tmp_path}/m.csv: 7 of 8 images are not there (paths are absolute, or below {tmp_path}): line 3: 0.png; "
        "line 4: 1.png; line 5: 2.png; line 6: 3.png; line 7: 4.png; and 2 more"
    )


def test_reading_a_manifest_needs_no_torch(tmp_path):
    import subprocess
    import sys

    file = written(tmp_path, "m.csv", "path\na.png\n")
    code = f"import sys; from dinomx_core.builtin.manifest import read_manifest; read_manifest(__import__('pathlib').Path({str(file)!r})); assert not {{'torch', 'pyarrow'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
