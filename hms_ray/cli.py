"""`hms-ray VERB`, also `python -m hms_ray.VERB`: parses, calls, prints.

Exit status: 0 done, 2 the user's mistake, 1 our fault, 130 interrupted.
"""

import argparse
import atexit
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_ray import __version__, api, catalogue, registry
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError, HmsRayError, UserError

if TYPE_CHECKING:
    from hms_ray.ensemble.bootstrap import Estimate
    from hms_ray.ensemble.result import EnsembleResult, MethodScore, Selection

SET = "a dotted path of the base run, of another section, or of a union's member: stages.0.epochs=2; may repeat"
FULL = (errno.ENOSPC, errno.EDQUOT)
EXIT = "Exit status: 0 done, 2 the user's mistake, 1 our fault, 130 interrupted."
LOADING = ("prepare", "search", "train", "ensemble", "report", "predict")  # verbs that import large libraries
EXAMPLES = {
    "simulate": ("hms-ray simulate data/hms --patients 30", "hms-ray simulate data/hearts --dataset bmd_hs"),
    "prepare": ("hms-ray prepare --space effnet --data data/hms",),
    "search": (
        "hms-ray search --space demo --smoke",
        "hms-ray search --space effnet --data data/hms --study runs/first --trials 20",
        "hms-ray search --space effnet --space mit --data data/hms --study runs/both",
        "hms-ray search --space demo --data data/hms --set stages.0.lr=1e-3 --set model='{name: mit, arch: b0}'",
    ),
    "train": ("hms-ray train --space demo --data data/hms --study runs/first --set seed=1",),
    "ensemble": (
        "hms-ray ensemble --study runs/first --pool linear --max-members 5",
        "hms-ray ensemble --study runs/mine --oof labels.csv model_*.parquet --min-votes 10",
    ),
    "report": ("hms-ray report --study runs/first",),
    "predict": ("hms-ray predict --study runs/first --data data/hms --out submission.csv",),
    "list": ("hms-ray list", "hms-ray list spaces models"),
    "describe": ("hms-ray describe demo", "hms-ray describe timm_image", "hms-ray describe stages"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, verbs = _parser()
    _check_words(parser, verbs, words)
    arguments = parser.parse_args(words)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr, force=True)
    if arguments.verb in LOADING:
        print(f"hms-ray {arguments.verb}: loading ...", file=sys.stderr, flush=True)
    try:
        arguments.call(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno in FULL:
            print(f"failed: {error.strerror}; make room, and the same command goes on", file=sys.stderr)
            return 1
        if error.filename is None:  # not about a path that the user chose
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except HmsRayError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything finished is kept, the same command goes on", file=sys.stderr)
        return 130
    return 0


def console() -> None:
    """The console script.

    It leaves without taking apart what was imported: with torch, that takes longer than two seconds.
    """
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads, or the disk is full: Python says so
        sys.exit(code)
    atexit._run_exitfuncs()
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    """Knows the names of its options, so that a misspelled one gets a suggestion."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.known: list[str] = []
        super().__init__(*arguments, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument, as argparse does, and note its names."""
        self.known += [name for name in names if name.startswith("-")]
        return super().add_argument(*names, **options)


def _check_words(parser: argparse.ArgumentParser, verbs: dict[str, _Parser], words: Sequence[str]) -> None:
    """End with exit status 2 and a suggestion where the verb or an option does not exist."""
    if not words or words[0].startswith("-"):
        return
    verb, *others = words
    if verb not in verbs:
        parser.error(hints.unknown("verb", verb, verbs))
    known = verbs[verb].known
    found = []
    for word in others:
        name = word.partition("=")[0]
        if word == "--":
            break
        if not re.match(r"--?[a-z]", word) or any(option.startswith(name) for option in known):
            continue
        hint = hints.hint(f"--{name.lstrip('-')}", known) or f"; it has {', '.join(known)}"
        found.append(f"{verb} has no option {name}{hint}")
    if found:
        verbs[verb].error("; ".join(found))


def _epilog(verb: str) -> str:
    """Return what the help of a verb ends with: examples, and what can be named."""
    parts = ["examples:", *(f"  {example}" for example in EXAMPLES[verb])]
    if verb in ("prepare", "search", "train"):
        parts += [
            "",
            f"spaces: {', '.join(catalogue.names('spaces'))}",
            "`hms-ray list` says what they are, `hms-ray describe NAME` more.",
        ]
    if verb == "ensemble":
        parts += ["", f"pools: {', '.join(catalogue.names('pools'))}", "`hms-ray list pools` says what they are."]
    if verb == "simulate":
        parts += ["", f"data sets: {', '.join(catalogue.names('datasets'))}"]
    return "\n".join(parts)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, _Parser]]:
    """Return the command line's parser, and that of each verb."""
    parser = argparse.ArgumentParser(
        "hms-ray",
        description="Search, train, ensemble and report on EEG recordings and heart sounds.",
        epilog="first steps:\n  hms-ray search --space demo --smoke    a tiny search on simulated recordings\n"
        "  hms-ray list                          spaces, models, features, augmentations, pools, data sets\n"
        f"  hms-ray VERB --help                   options and examples\n\n{EXIT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="verb", parser_class=_Parser)
    simulate = _verb(verbs, _simulate, "write simulated recordings in the layout of a dataset")
    simulate.add_argument("out", type=Path, metavar="OUT")
    simulate.add_argument("--dataset", default="hms", metavar="NAME", help="whose layout (default: hms)")
    for name, default, text in (
        ("--eegs", None, "recordings of the training part, of datasets that have any number (default: 4 a patient)"),
        ("--patients", 60, "patients they are from (default: 60)"),
        ("--seed", 0, "the same seed writes the same bytes (default: 0)"),
    ):
        simulate.add_argument(name, type=int, default=default, metavar="N", help=text)
    prepare = _verb(verbs, _prepare, "read the data once and keep the features of a space")
    _add_spaces(prepare, required=False)
    _add_data(prepare)
    prepare.add_argument("--here", action="store_true", help="with threads of this process, without Ray")
    for call, text in (
        (_search, "run a hyperparameter search and fit the ensemble; rerun the command to resume"),
        (_train, "train a space's base run on all folds and fit the ensemble; rerun the command to resume"),
    ):
        verb = _verb(verbs, call, text)
        _add_spaces(verb, required=True)
        _add_data(verb)
        _add_study(verb, required=False)
        trials = "trials a search tries (default: the space's budget)" if call is _search else argparse.SUPPRESS
        verb.add_argument("--trials", type=int, metavar="N", help=trials)
        verb.add_argument("--folds", type=int, metavar="K", help="cross-validation folds (default: the space's)")
        verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET)
        verb.add_argument("--smoke", action="store_true", help="a tiny run on simulated data")
        verb.add_argument("--here", action="store_true", help="train in this process, one fold at a time, without Ray")
        verb.add_argument("--force", action="store_true", help="go on with a study that other code has made")
    ensemble = _verb(verbs, _ensemble, "fit ensemble weights on out-of-fold predictions")
    _add_study(ensemble, required=True)
    _add_foreign(ensemble)
    _add_fit(ensemble)
    report = _verb(verbs, _report, "write one HTML page of a study")
    _add_study(report, required=True)
    report.add_argument("--out", type=Path, metavar="DIR", help="default: reports/<study>")
    predict = _verb(verbs, _predict, "predict new data with the ensemble")
    _add_study(predict, required=True)
    _add_data(predict)
    predict.add_argument("--out", type=Path, required=True, metavar="FILE", help="submission.csv to write")
    listing = _verb(verbs, _list, "list spaces, models, features, augmentations, pools, data sets and sections")
    listing.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(catalogue.KINDS)} (default: all)")
    describe = _verb(verbs, _describe, "show a space, or the parameters of a model, feature, augmentation, ...")
    describe.add_argument("name", metavar="NAME", help="a name that `hms-ray list` shows")
    for name, verb in verbs.choices.items():
        verb.epilog = _epilog(name)
    return parser, verbs.choices


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {number}")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, but got {text}")
    return number


def _verb(verbs: Any, call: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(call.__name__.strip("_"), help=text, description=text)
    verb.set_defaults(call=call)
    return verb


def _add_spaces(verb: argparse.ArgumentParser, required: bool) -> None:
    text = "a name of `hms-ray list spaces`, or a YAML file; may repeat" + ("" if required else " (default: demo)")
    verb.add_argument("--space", action="append", required=required, metavar="NAME|FILE", help=text)


def _add_data(verb: argparse.ArgumentParser) -> None:
    text = "default: $HMS_RAY_DATA; or what the dataset can fetch: kaggle, or the address of a repository"
    verb.add_argument("--data", metavar="DIR|ADDRESS", help=text)


def _add_study(verb: argparse.ArgumentParser, required: bool) -> None:
    text = "the study's folder" + ("" if required else " (default: runs/<space>)")
    verb.add_argument("--study", type=Path, required=required, metavar="DIR", help=text)


def _add_foreign(verb: argparse.ArgumentParser) -> None:
    """Add what is said about files of other pipelines."""
    text = "predictions from elsewhere and their labels: CSV, parquet or npy, joined on their ids"
    verb.add_argument("--oof", nargs="+", type=Path, default=[], metavar="FILE", help=text)
    text = "the file with votes and folds (default: the one of --oof that has them)"
    verb.add_argument("--labels", type=Path, metavar="FILE", help=text)
    text = "each class's column, in files that name them otherwise than by the class"
    verb.add_argument("--columns", metavar="CLASS=COLUMN,...", help=text)
    text = "the columns to join on (default: every id column that all files have)"
    verb.add_argument("--ids", metavar="COLUMN,...", help=text)
    verb.add_argument(
        "--allow-missing", action="store_true", help="score the rows that every file has, and say how many"
    )


def _add_fit(verb: argparse.ArgumentParser) -> None:
    """Add on which units an ensemble is fitted, how, and how large it may be."""
    verb.add_argument("--min-votes", type=_at_least_one, metavar="N", help="score units with at least N votes")
    text = "auto (several, by their nested score), linear, log_linear, tempered, calibrated, two_level, average, ..."
    verb.add_argument("--pool", default="auto", metavar="NAME", help=f"{text} (default: auto)")
    for name, text in (("--max-members", "members with weight"), ("--max-per-space", "members of one space")):
        verb.add_argument(name, type=_at_least_one, metavar="N", help=f"no more {text}")
    text = "drop members while the linear pool stays within so many nats of its optimum"
    verb.add_argument("--tolerance", type=_not_negative, metavar="KL", help=text)


def _simulate(arguments: argparse.Namespace) -> None:
    from hms_ray.core.progress import Progress

    more = {} if arguments.eegs is None else {"recordings": arguments.eegs}
    simulate = registry.simulator(arguments.dataset)
    simulate(arguments.out, arguments.patients, arguments.seed, Progress("simulate"), **more)
    print(arguments.out)


def _prepare(arguments: argparse.Namespace) -> None:
    spaces = arguments.space or ["demo"]
    for store in api.prepare(spaces, arguments.data, in_process=arguments.here):
        print(store)


def _search(arguments: argparse.Namespace) -> None:
    _show(api.search(arguments.space, trials=arguments.trials, **_options(arguments)))


def _train(arguments: argparse.Namespace) -> None:
    if arguments.trials is not None:
        raise ConfigError(
            "--trials has no effect on train, which trains the base run once: leave it out, or use `hms-ray search`"
        )
    _show(api.train(arguments.space, **_options(arguments)))


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what search and train take alike."""
    return {
        "data": arguments.data,
        "study": arguments.study,
        "folds": arguments.folds,
        "overrides": arguments.set,
        "smoke": arguments.smoke,
        "in_process": arguments.here,
        "force": arguments.force,
    }


def _show(study: api.Study) -> None:
    """Print the ensemble of a study, write its report, and print where that is."""
    for line in _summary(study.ensemble):
        print(line)
    print(api.report(study))


def _ensemble(arguments: argparse.Namespace) -> None:
    from hms_ray.ensemble import check_pool

    check_pool(arguments.pool)
    named = [option for option in (arguments.labels, arguments.columns, arguments.ids) if option is not None]
    if not arguments.oof and (named or arguments.allow_missing):
        raise ConfigError(
            "--labels, --columns, --ids and --allow-missing say how to read the files of --oof; give --oof"
        )
    study = _imported(arguments) if arguments.oof else api.load_study(arguments.study)
    from hms_ray.ensemble import Limits  # not before: what is no study is refused without the large libraries

    limits = Limits(arguments.max_members, arguments.max_per_space, tolerance=arguments.tolerance)
    study.fit_ensemble(arguments.pool, min_votes=arguments.min_votes, limits=limits)
    for line in _summary(study.ensemble):
        print(line)


def _imported(arguments: argparse.Namespace) -> api.Study:
    from hms_ray.oof_import import parse_columns

    return api.import_oof(
        arguments.oof,
        arguments.study,
        labels=arguments.labels,
        columns=parse_columns(arguments.columns) if arguments.columns is not None else None,
        ids=[name.strip() for name in (arguments.ids or "").split(",") if name.strip()],
        min_votes=arguments.min_votes,
        allow_missing=arguments.allow_missing,
    )


def _report(arguments: argparse.Namespace) -> None:
    print(api.report(arguments.study, arguments.out))


def _predict(arguments: argparse.Namespace) -> None:
    rows = api.predict(arguments.study, arguments.data, out=arguments.out)
    print(f"{arguments.out}: {rows} rows")


def _list(arguments: argparse.Namespace) -> None:
    unknown = [kind for kind in arguments.kinds if kind not in catalogue.KINDS]
    if unknown:
        raise ConfigError(hints.unknown("kind", unknown[0], catalogue.KINDS))
    _print(catalogue.listing(arguments.kinds or catalogue.KINDS))


def _describe(arguments: argparse.Namespace) -> None:
    _print(catalogue.description(arguments.name))


def _print(lines: Iterator[str]) -> None:
    """Print lines until whoever reads them has enough: `hms-ray list | head`."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end


def _summary(result: "EnsembleResult") -> Iterator[str]:
    """Yield what a reader has to know of an ensemble, each score beside its population and its interval."""
    from hms_ray.report.words import fold_list
    from hms_ray.study.oof import optimism

    rows, base, optimistic = result.population, result.baselines, result.optimistic_epochs
    mark = f"  {optimism('best')}" if optimistic else ""
    votes = f" with >= {rows.min_votes} votes" if rows.min_votes > 1 else ""
    yield f"{rows.units} units{votes} of {rows.groups} patients"
    if result.selection is not None:  # it leads: the search chose configurations on rows that they are scored on
        yield f"selection-corrected     {_with_interval(result.leading)}{mark}"
        yield f"                        {_correction(result.selection)}"
    yield f"ensemble, cross-fitted  {_with_interval(result.interval)}{mark}"
    yield f"ensemble, in sample     {result.score_in_sample:.5f}  optimistic: weights fitted on the rows scored"
    best = base.best_single_trial
    best_mark = mark if best in optimistic else ""
    if result.candidates == 1:
        yield f"the only table          {base.best_single:.5f}  {best}, as it is{best_mark}"
    else:
        yield f"best single             {base.best_single:.5f}  {best}, chosen in hindsight{best_mark}"
        yield f"mean of all             {base.mean:.5f}{mark}"
    yield f"class prior             {base.prior:.5f}"
    if base.plain is not None:
        yield f"plain baseline          {base.plain:.5f}  {base.plain_is}"
    if (area := result.metrics.macro_auroc_interval) is not None:  # higher is better
        yield f"macro AUROC             {_with_interval(area)}  of the ensemble, cross-fitted"
        plain = result.metrics_of_plain
        if plain is not None and plain.macro_auroc_interval is not None:
            yield f"macro AUROC, plain      {_with_interval(plain.macro_auroc_interval)}  of the plain baseline"
    yield f"members with weight     {len(result.members)} of {result.candidates}"
    yield from _methods(result.methods, mark)
    if outside := result.outside_selection:
        where = f"{outside.units} units of {fold_list(outside.folds)}"
        yield f"no configuration was chosen on {where}: there, cross-fitted {outside.score_cross_fitted:.5f}{mark}"
    yield from (f"note: {note}" for note in result.notes)


def _correction(selection: "Selection") -> str:
    """Say what the selection-corrected score adds to the cross-fitted one."""
    from hms_ray.report.words import fold_list

    picking = f"picking {selection.kept} of {selection.configurations} configurations on {fold_list(selection.folds)}"
    if selection.optimism > 0:
        return f"adds the estimated optimism of {picking}"
    return f"adds nothing: the estimated optimism of {picking} is not above 0"


def _methods(methods: "Sequence[MethodScore]", mark: str) -> Iterator[str]:
    """Yield a table of all pools; mark: the remark that applies to all their scores."""
    head = f"{'pool':12} {'in sample':>9} {'cross-fitted, 95 % interval':>30} {'against ours':>28} {'gap':>8}  members"
    yield f"{head}{mark}"
    for row in methods:
        gap = "-" if row.gap is None else f"{max(row.gap, 0):.0e}"
        against = _with_interval(row.difference, "+") if row.difference.value else ""
        yield (
            f"{row.method:12} {row.score_in_sample:9.5f} {_with_interval(row.score_cross_fitted):>30} "
            f"{against:>28} {gap:>8}  {row.members}"
        )


def _with_interval(estimate: "Estimate", sign: str = "") -> str:
    """Print an estimate with its interval, which a few patients do not have."""
    value = f"{estimate.value:{sign}.5f}"
    return value if estimate.low is None else f"{value} ({estimate.low:{sign}.5f} {estimate.high:{sign}.5f})"
