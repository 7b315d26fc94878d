"""Turn templates of the generated MuDoConv corpus: the topic decides the reply."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """What is talked and asked about, and how it is answered."""

    things: tuple[str, ...]
    turns: tuple[str, ...]
    replies: tuple[str, ...]


WORDS: dict[str, tuple[str, ...]] = {
    "city": ("Eastport", "Granby", "Lorne", "Millhaven", "Dunmore", "Fairholt"),
    "relative": ("brother", "sister", "mother", "father", "cousin", "neighbour"),
    "day": ("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "job": ("nurse", "teacher", "carpenter", "gardener", "driver", "baker"),
    "mood": ("tired", "cheerful", "nervous", "bored", "excited", "calm"),
    "food": ("noodles", "curry", "dumplings", "pancakes", "soup"),
}

OPENINGS: tuple[str, ...] = (
    "Your persona: i am a {job} from {city} and i think about {thing} and {thing} all day.",
    "Your persona: i work as a {job}. i know a lot about {thing}. {thing} is what i talk about.",
    "Feeling: {mood}. It was a week of {thing} and {thing} for me and my {relative}.",
    "Hello there! I am a {job}, and i have come to {city} because of {thing} and {thing}.",
)

SMALL_TALK: tuple[str, ...] = (
    "I spent last {day} with my {relative}, and we spoke of {thing} and {thing} until late.",
    "Really? I never cared for {thing} until my {relative} told me about {thing}.",
    "My {relative} was {mood} on {day}, and {thing} was the reason, as well as {thing}.",
    "That sounds nice. With {thing} and {thing} on my mind i have been quite {mood}.",
    "I should tell you that no {job} in {city} can do without {thing} or {thing}.",
    "Do not worry about {thing}, my {relative} says the same of {thing} every {day}.",
)

TOPICS: tuple[Topic, ...] = (
    Topic(
        things=("restaurant", "table", "dinner", "menu"),
        turns=(
            "Anyway, can you book a table at a restaurant for {day}?",
            "Now i need a restaurant in {city}, could you reserve a table for two?",
        ),
        replies=(
            (
                "Of course, i can reserve that for you. How many people will be eating, and what "
                "time would you like to arrive?"
            ),
        ),
    ),
    Topic(
        things=("cricket", "match", "bowler", "wicket"),
        turns=(
            "By the way, did you watch the cricket match on {day}?",
            "My {relative} only talks about cricket, do you follow the match as well?",
        ),
        replies=(
            (
                "Yes, it was a thrilling game! The bowlers were brilliant, but my favourite team "
                "lost by three runs in the last over."
            ),
        ),
    ),
    Topic(
        things=("dog", "puppy", "leash", "kennel"),
        turns=(
            "Something bad happened, my dog ran away on {day} and i miss my dog.",
            "My old dog is very ill and my {relative} says the dog may not get better.",
        ),
        replies=("I am so sorry to hear about your pet, i hope that it gets better soon.",),
    ),
    Topic(
        things=("music", "guitar", "melody", "concert"),
        turns=(
            "Do you play any music? I have a guitar at home in {city}.",
            "I want to learn some music, my {relative} gave me a guitar on {day}.",
        ),
        replies=(
            "That is great, i have played the piano since i was ten. Which songs do you like?",
        ),
    ),
)
