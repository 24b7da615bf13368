"""Text files: what never ends, is no file, or holds no number where one is due, is refused by name and at once."""

import os
import time
from pathlib import Path

import pytest

from medrecon.core.plain_text import check_tree, read_json, read_table, read_text, read_toml, read_yaml


def write(folder: Path, text: str) -> Path:
    (folder / "x.txt").write_text(text)
    return folder / "x.txt"


@pytest.mark.parametrize(
    "text",
    [
        "a." * 20_000 + "a = 1",  # 24 s with tomllib alone
        "\n".join("a." * 200 + f"x{i} = 1" for i in range(1000)),
        "x = [" * 5000,
        "x = {y = " * 5000,
        "x = " + "[" * 5000 + "]" * 5000,
        "x = " + "9" * 5000,
        "x = 'a",
        '"a"."b".' * 5000 + "c = 1",
    ],
    ids=lambda text: text[:12],
)
def test_toml_ends(text: str, tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"x\.txt: not a TOML file"):
        read_toml(write(tmp_path, text))
    assert time.process_time() - start < 1


def test_ordinary_toml_has_many_dots(tmp_path: Path) -> None:
    names = ", ".join(f'"sub-{i:03d}.nii.gz"' for i in range(300))
    numbers = ", ".join(f"{i}.5" for i in range(300))
    text = f"content = '{'One. ' * 200}'\ntrain = [{names}]\nx = [{numbers}]\n# {'. ' * 300}\n[a.b]\nc.d = 1\n"
    found = read_toml(write(tmp_path, text))
    assert len(found["train"]) == len(found["x"]) == 300 and found["a"] == {"b": {"c": {"d": 1}}}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, '{"a": 1} x', "\x00"])
def test_json_is_an_object_of_numbers(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.txt: "):
        read_json(write(tmp_path, text))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match="is no file, but a folder, a pipe or a device"):
            read_text(path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="bytes: is a binary file, and text is due"):
        read_text(tmp_path / "bytes")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="huge: 1099511627776 bytes"):
        read_text(tmp_path / "huge")


def test_tables_have_whole_rows(tmp_path: Path) -> None:
    head = "sheet\tframe\n"
    assert read_table(write(tmp_path, head + "a\t3\textra\n"), ("sheet", "frame"), ("frame",))[0]["frame"] == "3"
    for text, message in (
        (head + "a\t1\nb\n", "line 3: no 'frame'"),
        ("sheet\na\n", "line 2: no 'frame'"),
        (head + "a\tx\n", "line 2: frame is 'x', not a number"),
        (head + "a\t-1\n", "line 2: frame is '-1', not a number"),
        (head + "a\t1.5\n", "line 2: frame is '1.5', not a number"),
        (head + "a\t" + "9" * 30 + "\n", "line 2: frame is '999"),
        (head + "a\t" + "b" * 200_000 + "\n", "x.txt: "),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read_table(write(tmp_path, text), ("sheet", "frame"), ("frame",))
        assert "x.txt" in str(error.value)


def test_configurations_have_text_as_keys_and_an_end() -> None:
    laugh: list[object] = ["lol"]
    for _ in range(20):
        laugh = [laugh] * 9  # as YAML's aliases make it
    deep: object = 1
    for _ in range(60):
        deep = {"a": deep}
    for content, message in (
        ({"a": {1: 2}}, "c.yaml: the key 1 is not text"),
        ({True: 2}, "c.yaml: the key True is not text"),
        ({"a": laugh}, "c.yaml: more than 100000 values"),
        (deep, "c.yaml: more than 50 levels"),
    ):
        with pytest.raises(ValueError, match=message):
            check_tree(content, "c.yaml")
    check_tree({"a": [1, {"b": None}], "c": "d"}, "c.yaml")


@pytest.mark.parametrize(
    "text",
    ["a: [", "1: 2", "a: " + "[" * 3000, "a: " + "9" * 5000, "a: \x00", "? [1]\n: 2", "? {a: 1}\n: 2", "a: !!python/x"],
)
def test_yaml_is_a_configuration(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.txt: "):
        read_yaml(write(tmp_path, text))
    laughs = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'lol'] * 9)}]\n" for i in range(30))
    with pytest.raises(ValueError, match="more than 100000 values"):
        read_yaml(write(tmp_path, laughs))
