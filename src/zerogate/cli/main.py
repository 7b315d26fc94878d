"""Report what a machine can run, and find the release that changed a metric. To measure and judge
this environment, run pytest: ``pytest -m cpu``.
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
except ModuleNotFoundError as error:  # The user needs its name, not a traceback.
    sys.exit(f"lacks {error.name}: not installed\n      -> install it, or pytest-zerogate again")


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 4 for a usage error, 130 if interrupted.

    The doctor's is 0 if at least one tier can run, else 1.
    """
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
    except BrokenPipeError:  # Nobody reads the output; what was measured is in the report folder.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename2 or error.filename or "a file"
        print(
            f"ERROR: {where}: {error.strerror or error}; expected a file that can be read and "
            "written; fix that, and repeat the command: it reuses what was measured",
            file=sys.stderr,
        )
        return 4
    except KeyboardInterrupt:
        print("interrupted; repeat the command: it reuses what was measured", file=sys.stderr)
        return 130
    finally:
        undo()
    return code


def _doctor(arguments: argparse.Namespace) -> int:
    findings = list(doctor.examine())
    print(doctor.report(findings))
    runs = [not any(doctor.blocks(one, tier) for one in findings) for tier in TIERS]
    return 0 if any(runs) else 1
