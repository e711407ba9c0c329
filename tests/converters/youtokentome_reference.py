"""A `bpe.model` of YouTokenToMe with random rules, and what it makes of a text, rule by rule."""

import random
from itertools import pairwise

SPACE = "▁"
ASCII_SPACE = "\t\n\v\f\r "


class YouTokenToMeReference:
    """Characters and rules: tokens 0 to 3 are pad, unknown, bos and eos, then come the characters, then the rules.

    A rule joins two neighbours in one of `words`, chosen at random, until there are `num_rules` or nothing is left.
    """

    def __init__(self, alphabet: str, words: list[str], num_rules: int = 10**6):
        source = random.Random(0)
        letters = list(dict.fromkeys(SPACE + alphabet))
        source.shuffle(letters)
        self.characters = {letter: 4 + place for place, letter in enumerate(letters)}
        self.rules: dict[tuple[int, int], int] = {}
        words = list(words)
        while words and len(self.rules) < num_rules:
            word = source.choice(words)
            pairs = list(pairwise(self._word(word)))
            if pairs:
                self.rules[source.choice(pairs)] = self.vocab_size
            else:
                words.remove(word)

    @property
    def vocab_size(self) -> int:
        """Tokens, the special ones too."""
        return 4 + len(self.characters) + len(self.rules)

    def file(self) -> str:
        """The content of `bpe.model`."""
        lines = [f"{len(self.characters)} {len(self.rules)}"]
        lines += [f"{ord(letter)} {number}" for letter, number in self.characters.items()]
        lines += [f"{first} {second} {number}" for (first, second), number in self.rules.items()]
        return "\n".join([*lines, "1 0 2 3"]) + "\n"

    def words(self, text: str) -> list[str]:
        """What stands between ASCII white space and `▁`."""
        for space in ASCII_SPACE:
            text = text.replace(space, SPACE)
        return [word for word in text.split(SPACE) if word]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, no bos and eos."""
        return [token for word in self.words(text) for token in self._word(word)]

    def _word(self, word: str) -> list[int]:
        tokens: list[int | None] = [self.characters[SPACE]]
        for letter in word:
            token = self.characters.get(letter)
            if token is not None or tokens[-1] is not None:  # a run of unknown characters is one token
                tokens.append(token)
        while pairs := [pair for pair in pairwise(tokens) if pair in self.rules]:
            earliest = min(pairs, key=self.rules.__getitem__)  # rules make their tokens in order
            place = list(pairwise(tokens)).index(earliest)
            tokens[place : place + 2] = [self.rules[earliest]]
        return [1 if token is None else token for token in tokens]

    def encode_prompt(self, text: str, length: int) -> list[int]:
        """As ruDALL-E reads a text: lower case, between bos and eos, padded with 0 or cut to `length`."""
        tokens = [2, *self.encode(text.lower().strip()), 3]
        return (tokens + [0] * length)[:length]
