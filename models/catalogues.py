"""Texts in many languages: the translations in Django's package (BSD licence)."""

import re
import struct
from pathlib import Path

import django

PACKAGE = Path(django.__file__).parent
# Not text: placeholders, markup, addresses.
NOT_TEXT = re.compile(r"%\(\w+\)[a-z]|%[a-z%]|\{[^}]*\}|<[^>]*>|&\w+;|https?://\S+|\S+@\S+")
MIN_LETTERS = 4


def read_mo(path):
    """The messages of a GNU .mo file: original -> translations, one per grammatical number.
    https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html"""
    data = path.read_bytes()
    magic, _, count, originals, translations = struct.unpack_from("<5I", data)
    assert magic == 0x950412DE, path

    def string(table, index):
        length, start = struct.unpack_from("<2I", data, table + 8 * index)
        return data[start : start + length].decode()

    for index in range(count):
        original = string(originals, index).rpartition("\x04")[2].split("\0")[0]
        yield original, string(translations, index).split("\0")


def clean(message):
    return " ".join(NOT_TEXT.sub(" ", message).split())


def is_text(message):
    return sum(letter.isalpha() for letter in message) >= MIN_LETTERS


def texts(locale):
    """Sorted pairs (original, translation). For `en`, the originals themselves."""
    found = set()
    for path in PACKAGE.glob(f"**/locale/{'fr' if locale == 'en' else locale}/LC_MESSAGES/*.mo"):
        for original, translations in read_mo(path):
            for text in [original] if locale == "en" else translations:
                if original and is_text(clean(text)) and (locale == "en" or text != original):
                    found.add((original, clean(text)))
    return sorted(found)
