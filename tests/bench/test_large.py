"""The bench of a large problem: it runs, on a small scale."""


def test_each_pool_has_a_line(bench_named):
    lines = list(
        bench_named("large").run(["--members", "4", "--units", "200", "--patients", "20", "--pools", "linear"])
    )
    assert lines[0].startswith("4 members x 200 units")
    assert len(lines) == 2 and "members with weight" in lines[1]
