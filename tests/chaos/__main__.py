"""Break labctl off at random calls in a lab of fake guests, and check what is left.

    python tests/chaos --minutes 30 [--seed N] [--command up] [--mode kill]
    python tests/chaos --guests 500 --image .labctl/images/HASH/bzImage
    python tests/chaos --games [PART]

Prints the seed, and each case in which something was lost, doubled or left behind, with the
command that repeats it. With --guests, boots and closes real guests instead, and checks that
nothing grows. With --games, plays hostile guests: all, or those whose name has PART. With --write,
the figures go to docs/explanation/reliability.md.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shlex
import shutil
import sys
import time
from pathlib import Path

import broken
import figures
import games
import guests
import kills
import reliability

PROGRAMS = ("gcc", "make", "setpriv", "busybox", "git")


def main() -> int:
    """Return 1 if there are findings, 3 if the host lacks a program."""
    options = _options()
    words = reliability.command("tests/chaos", sys.argv[1:])
    if options.guests:
        return _count_guests(options, words)
    if options.games is not None:
        return _play_games(options, words)
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        print(f"programs not found: {', '.join(missing)}", file=sys.stderr)
        return 3
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    results: list[kills.Result] = []
    suite = broken.Suite()
    try:
        cases = kills.Kills(suite, suite.template(), seed)
        if options.at:
            command = next(one for one in kills.COMMANDS if one.name == options.command[0])
            results.append(cases.case(command, options.mode[0], options.at))
            print(results[0])
        else:
            draw = random.Random(seed)
            for command, mode in kills.drawn(draw, options.cases, options.command, options.mode):
                if time.monotonic() > began + 60 * options.minutes:
                    break
                results.append(cases.case(command, mode))
                if results[-1].faults:
                    _print_finding(results[-1], seed)
    finally:
        suite.close()
    played = figures.Played(results, seed, time.monotonic() - began, words)
    print(figures.summary(played))
    if options.write:
        figures.write(played)
    return 1 if any(each.faults for each in results) else 0


def _count_guests(options: argparse.Namespace, words: str) -> int:
    counted = guests.play(options.image, options.guests, options.minutes)
    print(guests.page(counted, words))
    print("\n".join(counted.faults) or "nothing grew")
    if options.write:
        guests.write(counted, words)
    return 1 if counted.faults else 0


def _play_games(options: argparse.Namespace, words: str) -> int:
    played, seconds = games.play(options.games, options.minutes)
    print(games.page(played, seconds, words))
    if options.write:
        games.write(played, seconds, words)
    return 1 if any(one.faults for one in played) else 0


def _print_finding(result: kills.Result, seed: int) -> None:
    words = ["--command", result.command, "--mode", result.mode, "--at", str(result.at)]
    again = shlex.join(["python", "tests/chaos", "--seed", str(seed), *words])
    print(f"{result}\n  again: {again}", flush=True)


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--minutes", type=float, default=30, help="Time limit.")
    reader.add_argument("--cases", type=int, default=sys.maxsize, help="Maximum cases.")
    reader.add_argument("--seed", type=int, help="Seed of the cases [default: random].")
    names = [one.name for one in kills.COMMANDS]
    reader.add_argument("--command", action="append", choices=names, help="Only this (repeatable).")
    modes = list(kills.MODES)
    reader.add_argument("--mode", action="append", choices=modes, help="Only this (repeatable).")
    reader.add_argument("--at", type=int, help="Only the case at this call of --command.")
    reader.add_argument("--guests", type=int, help="Number of real guests to boot and close.")
    reader.add_argument("--image", type=Path, help="Kernel image of --guests.")
    reader.add_argument("--games", nargs="?", const="", metavar="PART", help="Play hostile guests.")
    reader.add_argument("--write", action="store_true", help="Write the figures to docs/.")
    options = reader.parse_args()
    if options.at and not (options.command and options.mode):
        reader.error("--at: expected --command and --mode as well")
    if bool(options.guests) != bool(options.image):
        reader.error("--guests: expected --image as well, and the reverse")
    if options.at and options.write:
        reader.error("--write: conflicts with --at")
    return options


sys.exit(main())
