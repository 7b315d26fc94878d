"""The command line: ``zerogate doctor``. Measuring and judging are pytest's: ``pytest -m cpu``."""

from __future__ import annotations

import argparse
import sys

from zerogate import doctor
from zerogate.cell import TIERS


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 where at least one tier can run."""
    parser = argparse.ArgumentParser(prog="zerogate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="what this machine can run, and what it lacks").set_defaults(
        run=_doctor
    )
    run = parser.parse_args(arguments).run
    code: int = run()
    return code


def _doctor() -> int:
    findings = list(doctor.examine())
    print(doctor.report(findings))
    runs = [not any(doctor.blocks(one, tier) for one in findings) for tier in TIERS]
    return 0 if any(runs) else 1


if __name__ == "__main__":
    sys.exit(main())
