"""The bench of evaluations counts what is predicted."""

from bench import evaluation


def test_units_are_counted_and_set_beside_each_other():
    size = ["--units", "34", "--epochs", "3", "--repeats", "1", "--height", "32", "--width", "32"]
    head, *lines = evaluation.run(size)
    assert head == "34 held-out units, 10 of them scored, 3 epochs, 1 turns"
    assert [line.split(": ")[1].split(" units")[0] for line in lines[:3]] == ["102", "54", "78"]
    assert lines[3].startswith("  the scored ones, all after the last / all units after every epoch: ")
    assert len(lines) == 5 and all("(goal: at most 0.45)" in line for line in lines[3:])
