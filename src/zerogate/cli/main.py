"""The command line: what a machine can run, and which release changed what. Measuring and judging
this environment are pytest's: ``pytest -m cpu``.
"""

from __future__ import annotations

import argparse
import os
import sys

try:
    from zerogate.cli import doctor
    from zerogate.config.strategy_file import ConfigError
    from zerogate.protocol.cell import TIERS
    from zerogate.session.signals import interrupt_on_signals
except ModuleNotFoundError as error:  # Who asks what is missing gets no traceback for it.
    sys.exit(f"lacks {error.name}: not installed\n      -> pip install it, or pytest-zerogate anew")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: of the doctor 0 where at least one tier can run; 4 for a mistake."""
    from zerogate.cli.releases import add_commands

    parser = argparse.ArgumentParser(prog="zerogate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="what this machine can run, and what it lacks").set_defaults(
        run=_doctor
    )
    add_commands(commands)
    parsed = parser.parse_args(arguments)
    undo = interrupt_on_signals()
    try:
        code: int = parsed.run(parsed)
    except ConfigError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 4
    except BrokenPipeError:  # Nobody reads on: what is measured is in the report folder.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename2 or error.filename or "a file"
        print(
            f"ERROR: {where}: {error.strerror or error}; expected to read and write there; mend it, "
            "and the same command goes on with what is measured",
            file=sys.stderr,
        )
        return 4
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is measured", file=sys.stderr)
        return 130
    finally:
        undo()
    return code


def _doctor(arguments: argparse.Namespace) -> int:
    findings = list(doctor.examine())
    print(doctor.report(findings))
    runs = [not any(doctor.blocks(one, tier) for one in findings) for tier in TIERS]
    return 0 if any(runs) else 1
