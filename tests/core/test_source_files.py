"""Files that a space names: kept as text, imported from it, and refused when they are not what they were."""

import importlib
import sys
import traceback
from pathlib import Path

import pytest

from hms_ray.core import source_files
from hms_ray.core.errors import ConfigError, DataError

TEXT = '"""A file."""\n\nVALUE = 3\n\n\ndef fail():\n    raise ValueError("here")\n'


def test_a_file_is_imported_from_its_text_and_only_when_it_is_asked_for() -> None:
    source = source_files.keep("folder/net.py", TEXT + "# asked for\n")
    assert source.name == f"net@{source.fingerprint}" and source_files.find(source.name) is source
    assert source.module not in sys.modules
    module = importlib.import_module(source.module)
    assert module.VALUE == 3
    with pytest.raises(ValueError, match="here") as raised:
        module.fail()
    lines = "".join(traceback.format_exception(raised.value))
    assert 'File "folder/net.py", line 7, in fail' in lines and 'raise ValueError("here")' in lines


def test_another_text_is_another_component() -> None:
    one, two = source_files.keep("net.py", TEXT), source_files.keep("net.py", TEXT.replace("3", "4"))
    assert one.name != two.name
    assert [importlib.import_module(each.module).VALUE for each in (one, two)] == [3, 4]


@pytest.mark.parametrize("name", [None, 3, "net", "net@0123456789abcdef", ["net"]])
def test_a_name_that_is_no_file(name: object) -> None:
    assert source_files.find(name) is None


@pytest.mark.parametrize("path", ["net.txt", "my-net.py", "py", "", ".py"])
def test_a_name_that_no_module_can_have(path: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a Python file with a name such as my_net\.py"):
        source_files.keep(path, TEXT)


def test_files_travel_as_plain_values() -> None:
    source = source_files.keep("net.py", TEXT)
    assert source_files.restore(source_files.dump({"net.py": source}), "files") == {"net.py": source}
    assert source_files.restore({}, "files") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"run: must be a mapping of paths, but is \[\]"),
        ({"net.py": TEXT}, r"run: net\.py: must hold fingerprint and source, but is "),
        ({"net.py": {"source": TEXT}}, r"run: net\.py: must hold fingerprint and source"),
        ({"net.py": {"source": TEXT, "fingerprint": "ab"}}, r"run: net\.py: its source was edited: .*, not ab"),
        ({"a.py": 3, "b.py": 4}, r"run: 2 faults\n  - a\.py: .*\n  - b\.py: "),
    ],
)
def test_files_that_were_edited(content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source_files.restore(content, "run")


def test_a_path_is_relative_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(TEXT)
    assert source_files.read("net.py", tmp_path).text == TEXT
    with pytest.raises(ConfigError, match=r"other\.py: No such file or directory; the path is relative to the space's"):
        source_files.read("other.py", tmp_path)
