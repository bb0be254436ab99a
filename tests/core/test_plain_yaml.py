"""YAML within bounds: what people write is read, and what would take minutes or a traceback is one sentence."""

import pytest
import yaml

from hms_ray.core.errors import ConfigError
from hms_ray.core.plain_yaml import MAX_BYTES, load_yaml, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e+2", -200.0),
        ("1.5e3", 1500.0),
        ("1.0e-3", 1e-3),
        ("3", 3),
        ("3.0", 3.0),
        ("true", True),
        ("null", None),
        ("e5", "e5"),
        ("1e", "1e"),
        ("tf_efficientnet_b0.ns_jft_in1k", "tf_efficientnet_b0.ns_jft_in1k"),
        ("'1e-3'", "1e-3"),
        ("[1e-3, {a: 2}]", [1e-3, {"a": 2}]),
    ],
)
def test_values_are_read_as_people_write_them(text, value, tmp_path):
    (tmp_path / "a.yaml").write_text(f"value: {text}\n")
    for found in (parse_value(text), load_yaml(tmp_path / "a.yaml")["value"]):
        assert found == value
        assert type(found) is type(value)


def test_other_readers_of_yaml_are_left_alone():
    assert yaml.safe_load("1e-3") == "1e-3"


@pytest.mark.parametrize("text", ["a: [", "a: !!python/object/apply:os.getcwd []", "a: 1\na: 2", "\ta: 1"])
def test_a_file_that_is_no_plain_yaml_is_refused(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a.yaml: not valid YAML: "):
        load_yaml(tmp_path / "a.yaml")


def test_anchors_and_merges_are_plain_yaml(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  y: 3\nc:\n  <<: *b\n  x: 4\n"
    (tmp_path / "a.yaml").write_text(text)
    assert load_yaml(tmp_path / "a.yaml") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 4, "y": 3}}


def test_a_binary_file_is_no_yaml(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(tmp_path / "a.yaml")


def test_a_value_that_is_no_yaml_is_refused():
    with pytest.raises(ConfigError, match=r"--set: '\[1' is not a YAML value"):
        parse_value("[1")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 4: 11,111 values, aliases written out; at most 10,000 are read"),
        (CHAIN, "lists and mappings inside each other more than 40 deep"),
        ("[" * 200 + "]" * 200, "line 1: lists and mappings inside each other more than 40 deep"),
        ("a: &a [*a]", r"line 1: the alias \*a lies inside what it repeats"),
        ("a: &a {b: *a}", r"line 1: the alias \*a lies inside what it repeats"),
        ("a: 0x_", "line 1: '0x_' is not a whole number; quote it if it is text"),
        ("a: !!int abc", "line 1: 'abc' is not a whole number"),
        ("a: !!int ''", "line 1: '' is not a whole number"),
        ("a: !!float abc", "line 1: 'abc' is not a number"),
        ("a: !!bool abc", "line 1: 'abc' is not true or false"),
        ("a: 1\nb: " + "9" * 400, "line 2: '9999.* is not a whole number"),
        ("a: 9223372036854775808", r"line 1: .* too large a whole number; it must lie between -2\^63 and 2\^63"),
        ("a: [1, .nan]", "line 1: '.nan' is no finite number"),
        ("a: 1e400", "line 1: '1e400' is no finite number"),
        ("a: !!set {b, c}", "line 1: '!!set' is not read; write null, true, numbers, text, lists and mappings"),
        ("a: !!binary aGk=", "line 1: '!!binary' is not read"),
        ("a: !!timestamp 2020-01-01", "line 1: '!!timestamp' is not read"),
        ("a: !mine 1", "line 1: '!mine' is not read"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2: key 'c' is given twice; keep one"),
        ('a: "x\\0y"', r"line 1: the text 'x\\x00y' holds the character '\\x00'"),
        ('a: "\\ud800"', r"line 1: the text '\\ud800' holds the character"),
        ("a:\n\tb: 1", "line 2: .*'\\\\t'.*; indent with spaces"),
        ("a: \x01", "the character '\\\\x01' at position 3 may not stand in YAML"),
        ("? [a]\n: 1", "line 1: .*unhashable key"),
        ("a: 1\n---\nb: 2", "line 2: expected a single document"),
        ("a: *b", "line 1: found undefined alias 'b'"),
    ],
)
def test_what_no_run_can_hold_is_one_sentence_with_its_line(text, said, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    for read, argument in ((load_yaml, tmp_path / "a.yaml"), (parse_value, text)):
        with pytest.raises(ConfigError, match=said) as caught:
            read(argument)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700


def test_a_date_is_text(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 2020-01-01\nb: 2020-13-45\n")
    assert load_yaml(tmp_path / "a.yaml") == {"a": "2020-01-01", "b": "2020-13-45"}
    assert parse_value("2020-13-45") == "2020-13-45"


def test_a_file_may_be_so_large(tmp_path):
    (tmp_path / "a.yaml").write_text("# " + "x" * MAX_BYTES)
    with pytest.raises(ConfigError, match=r"a.yaml: 100,002 bytes; a YAML file may have 100,000"):
        load_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="a value of 100,002 characters"):
        parse_value("# " + "x" * MAX_BYTES)


def test_a_file_is_utf8_whatever_the_locale(tmp_path):
    (tmp_path / "a.yaml").write_bytes("\ufeffa: é ∂\n".encode())
    assert load_yaml(tmp_path / "a.yaml") == {"a": "é ∂"}
    (tmp_path / "a.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a.yaml: not valid YAML: not UTF-8 text \(byte 3\)"):
        load_yaml(tmp_path / "a.yaml")
