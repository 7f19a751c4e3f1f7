"""What of a text the language model sees: how often each group of letters occurs, groups in buckets.

components/language-identifier/src/ngrams.rs counts the same; ngrams.json of a version holds them to it.
"""

import re

import numpy as np

BUCKETS = 4096
LONGEST = 3
# What is no letter: all below U+00C0 but a to z, signs of multiplication and division, and the blocks
# of general, Chinese and full-width punctuation. By numbers, as tables of letters change.
BETWEEN_WORDS = re.compile(
    "[\u0000-\u0060\u007b-\u00bf\u00d7\u00f7\u2000-\u206f\u3000-\u303f\uff00-\uff0f]+"
)


def fnv1a(data):
    """Fowler, Noll and Vo's hash 1a, of 32 bits."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def ngrams(text):
    """Each group of one to three letters of a word; a space stands before and behind the word."""
    lower = "".join(letter.lower() for letter in text)
    for word in filter(None, BETWEEN_WORDS.split(lower)):
        word = f" {word} "
        for length in range(1, LONGEST + 1):
            for start in range(len(word) - length + 1):
                group = word[start : start + length]
                if group != " ":
                    yield group


def buckets(text):
    """The bucket of each group: the hash of its UTF-8."""
    return [fnv1a(group.encode()) % BUCKETS for group in ngrams(text)]


def count(texts):
    """float32, a row for each text and a column for each bucket."""
    rows = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        np.add.at(row, buckets(text), 1)
    return rows
