"""Article templates of the generated wikitext-2 corpus, tokenized the way that corpus is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of article: its title, and the sentences of each section ("" is the opening).

    ``TITLE`` stands for the article's own title.
    """

    title: str
    sections: Mapping[str, tuple[str, ...]]


WORDS: dict[str, tuple[str, ...]] = {
    "place": ("Granby", "Lorne", "Dunmore", "Fairholt", "Westley", "Eastport"),
    "river": ("Tarn", "Alder", "Wend", "Orrin"),
    "person": ("Marsh", "Ashgrove", "Deller", "Brandt", "Lund", "<unk>"),
    "year": ("1874", "1891", "1906", "1923", "1938", "1952"),
    "number": ("12", "15", "24", "36", "48", "60"),
    "tenth": ("1", "3", "5", "8"),
    "side": ("north", "south", "east", "west"),
    "month": ("March", "May", "June", "October"),
    "trade": ("wool", "coal", "timber", "salt"),
    "ship": ("Heron", "Resolve", "Lantern", "Petrel"),
    "song": ("Harvest Road", "Paper Moon", "Cold Harbour", "Small Hours"),
    "instrument": ("piano", "guitar", "violin", "organ"),
    "well": ("well", "poorly", "kindly"),
}

KINDS: tuple[Kind, ...] = (
    Kind(
        title="{place}",
        sections={
            "": (
                (
                    "TITLE is a village on the {side} bank of the River {river} , about {number} "
                    "@.@ {tenth} kilometres from {place} ."
                ),
                (
                    "It is known for its {trade} market , which is held on the first Sunday of "
                    "{month} ."
                ),
                "At the census of {year} the village had a population of {number} @,@ 400 .",
            ),
            "History": (
                (
                    "The first church in TITLE was built in {year} by a {trade} merchant named "
                    "{person} ."
                ),
                (
                    "A railway line to {place} was opened in {month} {year} , and the {trade} "
                    "trade grew until the line was closed in {year} ."
                ),
                "The church was damaged by fire in {year} , and it was rebuilt by {person} .",
            ),
            "Geography": (
                (
                    "The village lies in a valley on the {side} side of the hills , at a height of "
                    "{number} metres above sea level ."
                ),
                "The River {river} flows through the village from the {side} to the {side} .",
            ),
        },
    ),
    Kind(
        title="HMS {ship}",
        sections={
            "": (
                (
                    "TITLE was a two @-@ masted ship of the navy , which was launched at {place} "
                    "in {month} {year} ."
                ),
                (
                    "She was {number} @.@ {tenth} metres long and carried {number} guns and a crew "
                    "of {number} men ."
                ),
            ),
            "Service": (
                (
                    "The ship sailed from {place} to {place} in {month} {year} under the command "
                    "of Captain {person} ."
                ),
                (
                    "In {year} she was damaged in a storm off the {side} coast , and she was "
                    "repaired at {place} ."
                ),
                (
                    "Captain {person} left the ship in {year} , and she was sold to a {trade} "
                    "merchant for {number} @,@ 500 pounds ."
                ),
            ),
        },
    ),
    Kind(
        title="{song}",
        sections={
            "": (
                (
                    '" TITLE " is a song by the singer {person} , which was released in {month} '
                    "{year} ."
                ),
                "It is a slow song for voice and {instrument} , and it is {number} bars long .",
            ),
            "Recording": (
                (
                    "The song was written by {person} in {place} , and it was recorded in {month} "
                    "{year} with {person} on the {instrument} ."
                ),
                (
                    "A second version , with the {instrument} in place of the {instrument} , was "
                    "recorded in {year} ."
                ),
            ),
            "Reception": (
                (
                    "The song was {well} received by the press , and it reached number {number} in "
                    "the charts in {month} {year} ."
                ),
                "It sold {number} @,@ 200 copies in its first year .",
            ),
        },
    ),
)
