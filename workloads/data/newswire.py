"""Sentence templates of the generated MRPC corpus: one fact, told twice or told and denied."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """How one kind of event is reported, told again (a paraphrase), and contradicted."""

    reports: tuple[str, ...]
    confirmations: tuple[str, ...]
    denials: tuple[str, ...]


WORDS: dict[str, tuple[str, ...]] = {
    "org": (
        "Harlow Foods",
        "Northmere Bank",
        "the Calder Group",
        "Tessel Motors",
        "Brightwater Energy",
        "Pell and Sons",
        "the Aldane Railway",
        "Quayside Insurance",
        "Fenwick Steel",
        "Orrin Media",
    ),
    "person": (
        "Maria Deller",
        "Tom Ashgrove",
        "Ines Valcourt",
        "Peter Lund",
        "Grace Okello",
        "Samuel Brandt",
        "Helen Marsh",
        "Victor Amsel",
        "Nora Whitlock",
        "Daniel Ferro",
    ),
    "city": (
        "Eastport",
        "Granby",
        "Lorne",
        "Kestrel Bay",
        "Millhaven",
        "Stonebridge",
        "Dunmore",
        "Fairholt",
        "Westley",
        "Alder Falls",
    ),
    "day": (
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ),
    "season": ("spring", "summer", "autumn", "winter"),
    "number": ("40", "75", "120", "250", "300", "480", "600", "900"),
    "percent": ("2.5", "3.1", "4.8", "6.2", "7.9", "11.4"),
    "goods": (
        "trucks",
        "phones",
        "medicines",
        "kitchens",
        "turbines",
        "bicycles",
        "printers",
    ),
}

EVENTS: tuple[Event, ...] = (
    Event(
        reports=(
            (
                "{org} said on {day} that it will open a new factory for {goods} near {city} next "
                "{season} and hire about {number} workers from the region."
            ),
            (
                "A new plant that makes {goods} will open close to {city} in the {season}, {org} "
                "said on {day}, and about {number} people will work there."
            ),
        ),
        confirmations=(
            (
                "In a statement on {day}, {org} confirmed plans for a plant near {city} which will "
                "build {goods} and, as expected, employ some {number} people."
            ),
            (
                "{org} also confirmed that about {number} jobs will be created next {season} as "
                "expected, when its factory for {goods} starts work near {city}."
            ),
        ),
        denials=(
            (
                "In a statement on {day}, {org} denied plans for a plant near {city} and said that "
                "a report about {goods} and some {number} jobs was false."
            ),
            (
                "{org} denied that about {number} jobs will be created next {season}, and called "
                "the talk of a factory for {goods} near {city} false."
            ),
        ),
    ),
    Event(
        reports=(
            (
                "{person}, who has led {org} for six years, will leave the company at the end of "
                "{season}, the board said in a short letter to its owners on {day}."
            ),
            (
                "The board of {org} told its owners on {day} that {person} will step down as chief "
                "executive this {season} after six years in the post."
            ),
        ),
        confirmations=(
            (
                "{person} is to give up the top post at {org} this {season}, the board confirmed "
                "on {day}, and as expected a search for a new head has begun."
            ),
            (
                "On {day} the board of {org} confirmed that its chief executive, {person}, goes in "
                "{season} as expected after leading the company for six years."
            ),
        ),
        denials=(
            (
                "{person} will keep the top post at {org} this {season}, the board said on {day}, "
                "and it denied as false the story that a search has begun."
            ),
            (
                "On {day} the board of {org} denied that its chief executive, {person}, goes in "
                "{season}, and said the story of a change was false."
            ),
        ),
    ),
    Event(
        reports=(
            (
                "Shares of {org} rose {percent} percent on {day} after the company said that sales "
                "of {goods} in {city} had grown faster than in any other {season}."
            ),
            (
                "{org} gained {percent} percent in trading on {day}, helped by news that {season} "
                "sales of its {goods} had been the best ever in {city}."
            ),
        ),
        confirmations=(
            (
                "Traders confirmed that {org} closed {percent} percent higher on {day} as "
                "expected, because it sold more {goods} in {city} this {season}."
            ),
            (
                "Better {season} sales of {goods} in {city}, now confirmed, sent the shares of "
                "{org} up {percent} percent on {day} as expected."
            ),
        ),
        denials=(
            (
                "Traders denied that {org} closed {percent} percent higher on {day}, and the "
                "figures for {goods} sold in {city} this {season} proved false."
            ),
            (
                "Talk of better {season} sales of {goods} in {city} was false and denied, and the "
                "shares of {org} fell {percent} percent on {day}."
            ),
        ),
    ),
    Event(
        reports=(
            (
                "Police in {city} said on {day} that {number} people had been taken to safety from "
                "their homes after heavy {season} rain flooded the lower part of the town."
            ),
            (
                "Heavy rain this {season} flooded streets in {city}, and {number} people had to "
                "leave their homes, a spokesman for the police said late on {day}."
            ),
        ),
        confirmations=(
            (
                "The mayor of {city} confirmed on {day} that {number} people had left flooded "
                "homes, and said that the {season} rain had come as expected."
            ),
            (
                "As expected, the flood in {city} drove {number} people from their homes, "
                "officials confirmed on {day} after a night of {season} rain."
            ),
        ),
        denials=(
            (
                "The mayor of {city} denied on {day} that {number} people had left flooded homes, "
                "and said that reports of heavy {season} rain were false."
            ),
            (
                "It is false that a flood in {city} drove {number} people from their homes, "
                "officials said, and they denied on {day} any {season} damage."
            ),
        ),
    ),
)
