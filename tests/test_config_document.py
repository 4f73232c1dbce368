"""Reading YAML: the types of YAML 1.2, places of keys, and text that is not what it should be."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from recon_toolkit import ConfigError
from recon_toolkit.config.document import Place, parse, parse_override, parse_scalar, read

FILE = Path("some.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [  # YAML 1.2.2, section 10.3.2, core schema
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        (".Inf", math.inf),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-3", -3),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        (".", "."),
    ],
)
def test_scalars_have_the_types_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(float(str(parse_scalar(".nan"))))


def test_quoted_scalars_stay_words_and_keys_too() -> None:
    tree, problems = parse("on: '1'\ntrue: \"~\"\n3: |\n  5\n", Place(FILE))
    assert tree.plain() == {"on": "1", "true": "~", "3": "5\n"}
    assert problems == []


def test_every_key_and_item_knows_its_line() -> None:
    tree, _ = parse("a: 1\nb:\n  c: {d: 2,\n    e: 3}\n  f:\n  - x\n  - y\n", Place(FILE))
    lines = {keys: tree.place_of(keys).line for keys in [("a",), ("b", "c", "d"), ("b", "c", "e"), ("b", "f", 1)]}
    assert lines == {("a",): 1, ("b", "c", "d"): 3, ("b", "c", "e"): 4, ("b", "f", 1): 7}
    assert tree.place_of(("b", "nothing", "here")).line == 2  # the nearest above
    assert str(tree.place_of(("a",))) == "some.yaml:1"


def test_problems_that_allow_reading_on_are_all_reported() -> None:
    text = "a: 1\na: 2\nb: {c: 1, c: 2}\nd: !!python/name:os.system x\ne: !x {}\n<<: {f: 1}\n? [1]\n: 2\ng: 9\n"
    tree, problems = parse(text, Place(FILE))
    assert [str(problem) for problem in problems] == [
        "some.yaml:2: 'a' is given twice (first at some.yaml:1)",
        "some.yaml:3: 'c' is given twice (first at some.yaml:3)",
        "some.yaml:4: the tag '!!python/name:os.system' is not supported (write the value without it)",
        "some.yaml:5: the tag '!x' is not supported (write the value without it)",
        "some.yaml:6: '<<' is not supported (use 'extends')",
        "some.yaml:7: a key must be a word",
    ]
    assert tree.mapping["g"].value == 9


def test_anchors_work_and_cannot_fill_the_memory() -> None:
    assert parse("a: &x [1]\nb: *x", Place(FILE))[0].plain() == {"a": [1], "b": [1]}
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    for text in (bomb, "a: &x [*x]"):
        with pytest.raises(ConfigError, match="aliases refer to themselves or multiply"):
            parse(text, Place(FILE))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 1500 + "]" * 1500, "nested too deeply"),
        ("a: " + "{b: " * 1500 + "1" + "}" * 1500, "nested too deeply"),
        ("- " * 1500 + "1", "nested too deeply"),
        ("a0: &a0 1\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 1500)), "nested too deeply"),
        ("a: [" + "1," * 200_000 + "]", "too many entries"),
        ("a: " + "x" * 1_000_001, "too large for a pipeline"),
    ],
    ids=["lists", "mappings", "blocks", "aliases", "wide", "long"],
)
def test_text_that_nobody_writes_is_refused_soon(text: str, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError, match=message):
        parse(text, Place(FILE))
    assert time.process_time() - begun < 10  # 20,000 entries take 1 to 3 s


@pytest.mark.parametrize("number", ["9" * 10_000, "0x" + "f" * 5000, "-" + "1" * 100, "1" * 10_000 + ".5", str(2**64)])
def test_numbers_beyond_64_bits_are_named_with_their_line(number: str) -> None:
    tree, problems = parse(f"b: 1\na: {number}\nc: '{number}'", Place(FILE))
    assert len(problems) == 1 and str(problems[0]).startswith("some.yaml:2: this number of")
    assert tree.mapping["c"].value == number  # a word
    assert parse(f"a: {2**64 - 1}\nb: {-(2**63)}\nc: 1e999", Place(FILE))[1] == []


def test_a_file_too_large_is_not_read_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(100_000_000)  # it takes no room on the disk
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    for name, message in (
        ("large", "too large for a pipeline: 100,000,000 bytes"),
        ("pipe", "pipe or a device"),
        ("zero", "pipe or a device"),
        ("circle", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path / f"{name}.yaml")


def test_an_override_of_a_thousand_keys_is_no_override() -> None:
    with pytest.raises(ConfigError, match="an override is written"):
        parse_override("a." * 1000 + "b=1")


@pytest.mark.parametrize(
    ("text", "where"),
    [("a: [1", "1"), ("a: 1\nb: c: d", "2"), ("a: 1\n---\nb: 2", "2"), ("a: *b", "1"), ("a: 1\n\tb: 2", "2")],
)
def test_text_that_is_not_yaml_names_file_and_line(text: str, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^some\.yaml:{where}: this is not valid YAML: ."):
        parse(text, Place(FILE))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        (b"a: \x00", "not valid YAML"),
        (b"- 1\n- 2\n", "no mapping of keys to values"),
        (b"word", "no mapping of keys to values"),
    ],
)
def test_a_file_that_is_no_mapping_of_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read(path)


def test_an_empty_file_is_an_empty_mapping_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert read(tmp_path / "empty.yaml")[0].plain() == {}
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"{path.name}: cannot be read: "):
            read(path)


def test_overrides_are_read_as_yaml_with_their_place() -> None:
    tree, problems = parse_override("losses.a={name: x, weight: 1e-3}")
    assert tree.plain() == {"losses": {"a": {"name": "x", "weight": 1e-3}}}
    assert str(tree.place_of(("losses", "a", "weight"))) == "--set losses.a"
    assert problems == []
    assert parse_override("a=b=c")[0].plain() == {"a": "b=c"}
    for text in ("a.b", "=1", "a..b=1", ""):
        with pytest.raises(ConfigError, match=r"--set .*: an override is written a\.b\.c=value"):
            parse_override(text)
