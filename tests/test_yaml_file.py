"""YAML that other people wrote is parsed or refused in one line, quickly and in little memory."""

import time
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from htr_lightning.errors import InputError
from htr_lightning.yaml_file import load_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
REFUSED = {
    "exponential aliases": (BOMB, "aliases that expand to too many"),
    "quadratic aliases": ("- &a " + "x y" * 30_000 + "\n" + "- *a\n" * 1_000, "aliases that expand to too many"),
    "merged aliases": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)),
        "aliases that expand to too many",
    ),
    "a list in itself": ("&a [*a]", "alias .a refers to nothing before it"),
    "a mapping in itself": ("x: &a {b: *a}", "alias .a refers to nothing before it"),
    "an alias before its anchor": ("[*a, &a 1]", "alias .a refers to nothing before it"),
    "nested lists": ("[" * 100_000, "nested more than 50"),
    "nested mappings": ("{a: " * 40_000, "nested more than 50"),
    "nested blocks": ("".join(" " * n + "- \n" for n in range(300)), "nested more than 50"),
    "nested entries": ("- " * 50_000, "nested more than 50"),
    "many values": ("- a\n" * 45_000, "too many values"),
    "a large file": ("x: " + "y " * 150_000, "more than 200000 bytes"),
    "a decimal number": ("a: " + "9" * 5_000, "5000 characters without quotes or spaces"),
    "a hexadecimal number": ("a: 0x" + "f" * 5_000, "5002 characters without quotes or spaces"),
    "a number of base 60": ("a: " + "1:" * 5_000 + "1", "10001 characters without quotes or spaces"),
    "a tag of Python": ("!!python/object/apply:os.system [x]", "constructor"),
    "an invalid date": ("a: 2020-99-99", "invalid YAML"),
    "an invalid timestamp": ("!!timestamp x", "invalid YAML"),
    "an invalid boolean": ("!!bool x", "invalid YAML"),
    "an invalid integer": ('!!int ""', "invalid YAML"),
    "an invalid float": ("!!float .", "invalid YAML"),
    "invalid binary data": ("!!binary x", "invalid YAML"),
    "a list as a key": ("? [a]\n: b", "invalid YAML"),
    "a syntax error": ("a: [", "invalid YAML"),
    "two documents": ("a: 1\n---\nb: 2", "invalid YAML"),
    "a control character": ("a: \0", "invalid YAML"),
    "binary": (b"\xff\xfe\x00", "invalid YAML"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("parse", [None, OmegaConf.create])
def test_what_is_not_plain_data_of_reasonable_size_is_refused_in_one_line(tmp_path: Path, kind: str, parse) -> None:
    content, message = REFUSED[kind]
    if parse and kind == "an invalid date":
        pytest.skip("OmegaConf has no dates")
    (tmp_path / "x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(InputError, match=r"x\.yaml: invalid YAML \(.*\); correct or remove the file") as refused:
        load_yaml(tmp_path / "x.yaml", parse)
    assert time.process_time() - start < 5
    assert message in str(refused.value).replace("*", ".")
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "a: 1", "- a\n- 2\n- null", "base: &b {x: 1}\nother: {<<: *b, y: [*b, *b]}", "\ufeffa: é",
     "t: " + "long text " * 500, "n: 0x1F", "d: 2024-02-29", "m: |\n  two\n  lines\n", "q: '" + "9" * 5_000 + "'"],
)  # fmt: skip
def test_plain_data_is_parsed_as_by_the_library(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert load_yaml(tmp_path / "x.yaml") == yaml.safe_load(text)


def test_every_yaml_file_of_the_project_is_within_the_limits() -> None:
    files = [*Path(__file__).parent.parent.glob("[ce][ox][np]*/**/*.yaml"), *Path(__file__).parent.parent.glob("*.cff")]
    assert len(files) > 50
    for file in files:
        assert load_yaml(file) == yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_yaml(tmp_path / name)
