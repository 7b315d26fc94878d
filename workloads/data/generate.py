"""Writes the generated corpora: ``python -m workloads.data.generate`` from the repository root.

Standard library only and deterministic: the files in git are byte-identical to what this writes.
Every sentence is made up; columns and sentence lengths are those of the real data sets.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from workloads.data import dialogues, encyclopedia, newswire

SEED = 25


class Draw:
    """Random choices, from ``random()`` alone: only its values are promised to stay the same."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def below(self, stop: int) -> int:
        """An integer from 0 to ``stop`` - 1."""
        return int(self._random() * stop)

    def one(self, items: Sequence[str]) -> str:
        """One of ``items``, each as likely as the others."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[int]) -> list[int]:
        """``items`` in random order."""
        return [item for _, item in sorted((self._random(), item) for item in items)]

    def filled(self, template: str, words: Mapping[str, Sequence[str]], used: set[str]) -> str:
        """``template`` with each ``{slot}`` replaced by a word of that name; ``used`` gains it.

        A word in ``used`` is not taken again while there are others.
        """
        return template.format_map(_Slots(self, words, used))


class _Slots(dict[str, str]):
    """Draws anew whenever a slot is looked up."""

    def __init__(self, draw: Draw, words: Mapping[str, Sequence[str]], used: set[str]) -> None:
        super().__init__()
        self._draw, self._words, self._used = draw, words, used

    def __missing__(self, slot: str) -> str:
        choices = self._words[slot]
        word = self._draw.one([item for item in choices if item not in self._used] or choices)
        self._used.add(word)
        return word


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def paraphrases(draw: Draw, rows: int) -> str:
    """MRPC's columns; half of the pairs are paraphrases (label 1), in random order."""
    lines = []
    for idx, position in enumerate(draw.shuffled(range(rows))):
        label = position % 2
        event = newswire.EVENTS[draw.below(len(newswire.EVENTS))]
        # One fact is told twice, so both sentences get the same words in their slots.
        fact = {name: draw.one(choices) for name, choices in newswire.WORDS.items()}
        first = draw.one(event.reports).format_map(fact)
        second = draw.one(event.confirmations if label else event.denials).format_map(fact)
        texts = {"sentence1": _sentence(first), "sentence2": _sentence(second)}
        lines.append({**texts, "label": label, "idx": idx})
    return "".join(json.dumps(line) + "\n" for line in lines)


def conversations(draw: Draw, rows: int) -> str:
    """MuDoConv's two columns: what was said so far, and the reply."""
    lines = []
    for _ in range(rows):
        topic = dialogues.TOPICS[draw.below(len(dialogues.TOPICS))]
        talk = draw.shuffled(range(len(dialogues.SMALL_TALK)))[: draw.below(5)]
        turns = [draw.one(dialogues.OPENINGS)]
        turns += [dialogues.SMALL_TALK[index] for index in talk]
        turns += [draw.one(topic.turns)]
        words = {**dialogues.WORDS, "thing": topic.things}
        texts = [draw.filled(turn, words, set()) for turn in turns]
        lines.append({"source": " ".join(texts), "target": draw.one(topic.replies)})
    return "".join(json.dumps(line) + "\n" for line in lines)


def articles(draw: Draw, count: int) -> str:
    """wikitext-2's lines: `` = Title = ``, `` = = Section = = ``, paragraphs, blank lines."""
    lines = [""]
    for _ in range(count):
        kind = encyclopedia.KINDS[draw.below(len(encyclopedia.KINDS))]
        title: set[str] = set()
        name = draw.filled(kind.title, encyclopedia.WORDS, title)
        lines += [f" = {name} = ", ""]
        for section, templates in kind.sections.items():
            if section:
                lines += [f" = = {section} = = ", ""]
            sentences = [draw.filled(item, encyclopedia.WORDS, set(title)) for item in templates]
            lines += [" " + " ".join(sentences).replace("TITLE", name) + " ", ""]
    return "\n".join(lines) + "\n"


def corpora() -> dict[str, str]:
    """The text of every generated file, by its path below ``workloads/data/``.

    Row counts: the training sets are whole global batches of the cpu recipes on two ranks; the
    validation sets are not, so that the padding of the last batch has to be trimmed.
    """
    return {
        "mrpc/train.jsonl": paraphrases(Draw(f"{SEED} mrpc train"), 256),
        "mrpc/validation.jsonl": paraphrases(Draw(f"{SEED} mrpc validation"), 61),
        "mudoconv/train.jsonl": conversations(Draw(f"{SEED} mudoconv train"), 288),
        "mudoconv/validation.jsonl": conversations(Draw(f"{SEED} mudoconv validation"), 23),
        "wikitext2/train.txt": articles(Draw(f"{SEED} wikitext2 train"), 84),
        "wikitext2/validation.txt": articles(Draw(f"{SEED} wikitext2 validation"), 12),
    }


def write(folder: Path) -> None:
    """Write all corpora below ``folder``, replacing those that are there."""
    for name, text in corpora().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the generated corpora.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    write(parser.parse_args().folder)
