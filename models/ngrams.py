"""The features of a text: counts of character n-grams, hashed into buckets.

components/language-identifier/src/ngrams.rs computes the same; its test compares with ngrams.json.
"""

import re

import numpy as np

BUCKETS = 4096
MAX_LENGTH = 3
# Word separators: all below U+00C0 except a to z, the signs of multiplication and division, and the
# blocks of general, CJK and full-width punctuation. By code point, since Unicode's tables change.
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
    """The n-grams of 1 to MAX_LENGTH characters of each word, with a space before and after it."""
    lower = "".join(letter.lower() for letter in text)
    for word in filter(None, BETWEEN_WORDS.split(lower)):
        word = f" {word} "
        for length in range(1, MAX_LENGTH + 1):
            for start in range(len(word) - length + 1):
                ngram = word[start : start + length]
                if ngram != " ":
                    yield ngram


def buckets(text):
    """The bucket of each n-gram: the hash of its UTF-8."""
    return [fnv1a(ngram.encode()) % BUCKETS for ngram in ngrams(text)]


def count(texts):
    """float32: a row per text, a column per bucket."""
    rows = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        np.add.at(row, buckets(text), 1)
    return rows
