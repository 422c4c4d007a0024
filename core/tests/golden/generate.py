#!/usr/bin/env python3
"""Makes encoding-v1.tsv, and the example in docs/encoding.md, from docs/encoding.md alone.

An implementation of its own: it shares no code, and no way of computing anything, with the Rust that is
tested against its output. Needs the package blake3 from PyPI:

    python3 -m venv VENV && VENV/bin/pip install blake3 && VENV/bin/python core/tests/golden/generate.py

Values and cases are in cases.py.
"""
import json
import pathlib
import re
import struct
import sys
import uuid
from decimal import Decimal

from blake3 import blake3

from cases import ACCEPTED, REFUSED

sys.set_int_max_str_digits(0)

HERE = pathlib.Path(__file__).resolve().parent
KEY = bytes(range(32))
NULL = object()
U = "\\u"


def varint(number):
    groups = [number % 128]
    while number := number // 128:
        groups[-1] += 128
        groups.append(number % 128)
    return bytes(groups)


def sized(data):
    return varint(len(data)) + data


# ---- types: ("array", inner), ("numeric", 5, 2), ("enum", labels), ("composite", [(1, type)]) ...

def parse_type(text):
    column_type, rest = take_type(text)
    assert not rest, text
    return column_type


def take_type(text):
    """The type in front, and what is behind it."""
    kind, rest = re.fullmatch(r"([a-z0-9]+)(.*)", text, re.S).groups()
    if kind in ("array", "range", "multirange"):
        inner, rest = take_type(rest[1:])
        return (kind, inner), rest[1:]
    if kind == "composite":
        attributes, rest = [], rest[1:]
        while True:
            number, rest = re.fullmatch(r"(\d+) '(?:[^']|'')*' (.*)", rest, re.S).groups()
            inner, rest = take_type(rest)
            attributes.append((int(number), inner))
            if rest[0] == ")":
                return (kind, attributes), rest[1:]
            rest = rest[1:]
    if kind in ("enum", "other"):
        return (kind,), re.fullmatch(r"\((?:'(?:[^']|'')*',?)*\)(.*)", rest, re.S).group(1)
    limits, rest = re.fullmatch(r"(\([-\d,]+\))?(.*)", rest, re.S).groups()
    return (kind, *map(int, limits[1:-1].split(","))) if limits else (kind,), rest


# ---- texts to values: (tag, payload parts)

def decimal_parts(text):
    """Sign, coefficient and power of ten; None for a special value."""
    number = Decimal(text)
    sign, digits, power = number.as_tuple()
    return (bool(sign), int("".join(map(str, digits))), power)


def numeric(text, shown=None):
    special = {"nan": 2, "infinity": 3, "-infinity": 4}.get(text.lower())
    if special:
        return ("numeric", special, 0, 0, 0)
    negative, coefficient, power = decimal_parts(text)
    scale = max(0, -power) if shown is None else shown
    while coefficient and coefficient % 10 == 0:
        coefficient, power = coefficient // 10, power + 1
    return ("numeric", int(negative and coefficient != 0), scale, coefficient, power if coefficient else 0)


def numeric_payload(value):
    _, kind, scale, coefficient, power = value
    if kind > 1:
        return bytes([kind])
    groups = []
    shift = power % 4
    lowest = (power - shift) // 4
    coefficient *= 10 ** shift
    while coefficient:
        groups.append(coefficient % 10000)
        coefficient //= 10000
    groups.reverse()
    weight = lowest + len(groups) - 1 if groups else 0
    packed = b"".join(struct.pack("<H", group) for group in groups)
    return bytes([kind]) + struct.pack("<Hh", scale, weight) + varint(len(groups)) + packed


def day_number(year, month, day):
    """The Julian day (Fliegel and Van Flandern), as days since 2000-01-01; divisions round towards zero."""
    # Whole cycles of 400 years are taken out first, so that nothing divided is negative.
    cycles, year = divmod(year, 400)
    year += 4800
    a = -((14 - month) // 12)
    julian = (
        (1461 * (year + 4800 + a)) // 4
        + (367 * (month - 2 - 12 * a)) // 12
        - (3 * ((year + 4900 + a) // 100)) // 4
        + day
        - 32075
    )
    return julian - 12 * 146097 + cycles * 146097 - 2451545


def date(text):
    if text in ("infinity", "-infinity"):
        return 2**31 - 1 if text == "infinity" else -(2**31)
    year, month, day = re.fullmatch(r"(\d+)-(\d\d)-(\d\d)(?: BC)?", text).groups()
    year = 1 - int(year) if text.endswith("BC") else int(year)
    return day_number(year, int(month), int(day))


def clock(text):
    """Microseconds of [-]HH:MM:SS[.f]."""
    sign = -1 if text.startswith("-") else 1
    hours, minutes, seconds = text.lstrip("+-").split(":")
    return sign * (int(hours) * 3_600_000_000 + int(minutes) * 60_000_000 + int(Decimal(seconds) * 1_000_000))


def zone(text):
    """Seconds east of UTC of +HH[:MM[:SS]]."""
    parts = [int(part) for part in text[1:].split(":")] + [0, 0]
    return (parts[0] * 3600 + parts[1] * 60 + parts[2]) * (-1 if text[0] == "-" else 1)


def timestamp(text):
    if text in ("infinity", "-infinity"):
        return 2**63 - 1 if text == "infinity" else -(2**63)
    day, time, east, era = re.fullmatch(r"(\S+) ([\d:.]+)([+-][\d:]+)?( BC)?", text).groups()
    micros = date(day + (era or "")) * 86_400_000_000 + clock(time)
    return micros - zone(east) * 1_000_000 if east else micros


def interval(text):
    months = days = micros = 0
    for number, unit in re.findall(r"([+-]?\d+) (mon|day)", text):
        if unit == "mon":
            months = int(number)
        else:
            days = int(number)
    if found := re.search(r"[+-]?\d+:\d\d:[\d.]+", text):
        micros = clock(found.group())
    return months, days, micros


def split(text, opening="{", closing="}"):
    """Elements between commas that stand outside quotes and brackets: (text, was quoted)."""
    items, current, quoted, depth, in_quotes, i = [], "", False, 0, False, 0
    while i < len(text):
        char = text[i]
        if in_quotes:
            if not opening and text[i:i + 2] == '""':
                i += 1
                current += char
            elif char == "\\":
                i += 1
                current += ("\\" if depth else "") + text[i]
            elif char == '"':
                in_quotes = False
                current += char if depth else ""
            else:
                current += char
        elif char == '"':
            in_quotes = quoted = True
            current += char if depth else ""
        elif char == "," and depth == 0:
            items.append((current, quoted))
            current, quoted = "", False
        else:
            depth += (char in opening) - (char in closing)
            current += char
        i += 1
    return items + [(current, quoted)]


def array(text, element):
    bounds, body = re.fullmatch(r"(?:((?:\[-?\d+:-?\d+\])+)=)?(\{.*\})", text, re.S).groups()
    lengths, elements = [], []

    def walk(text, depth):
        items = split(text[1:-1]) if text != "{}" else []
        if depth == len(lengths):
            lengths.append(len(items))
        assert lengths[depth] == len(items)
        for item, quoted in items:
            if item.startswith("{") and not quoted:
                walk(item, depth + 1)
            else:
                elements.append(None if item == "NULL" and not quoted else value(item, element))

    walk(body, 0)
    lowers = [int(low) for low in re.findall(r"\[(-?\d+):", bounds)] if bounds else [1] * len(lengths)
    if not elements:
        return ("array", [], [])
    return ("array", list(zip(lengths, lowers)), elements)


def range_value(text, bound):
    if text == "empty":
        return ("range", 1, [])
    (lower, lower_quoted), (upper, upper_quoted) = split(text[1:-1], "", "")
    open_lower, open_upper = not (lower or lower_quoted), not (upper or upper_quoted)
    flags = 2 * open_lower + 4 * open_upper + 8 * (text[0] == "[") + 16 * (text[-1] == "]")
    ends = [(lower, open_lower), (upper, open_upper)]
    return ("range", flags, [value(end, bound) for end, is_open in ends if not is_open])


def value(text, column_type):
    kind = column_type[0]
    if kind == "bool":
        return ("bool", text in ("true", "t"))
    if kind in ("int2", "int4", "int8", "xid8"):
        return ("int", int(text))
    if kind == "numeric":
        return numeric(text)
    if kind in ("float4", "float8"):
        number = float(text)
        return ("float", struct.unpack("<f", struct.pack("<f", number))[0] if kind == "float4" else number)
    if kind == "char":
        return ("text", text.rstrip(" "))
    if kind in ("text", "varchar", "citext"):
        return ("text", text)
    if kind == "bytea":
        return ("bytea", bytes.fromhex(text[2:]))
    if kind == "uuid":
        return ("uuid", uuid.UUID(text).bytes)
    if kind == "date":
        return ("date", date(text))
    if kind == "time":
        return ("time", clock(text))
    if kind in ("timestamp", "timestamptz"):
        return (kind, timestamp(text))
    if kind == "timetz":
        time, east = re.fullmatch(r"([\d:.]+)([+-][\d:]+)", text).groups()
        return ("timetz", clock(time), -zone(east))
    if kind == "interval":
        return ("interval", *interval(text))
    if kind == "array":
        return array(text, column_type[1])
    if kind == "range":
        return range_value(text, column_type[1])
    if kind == "multirange":
        pieces = re.findall(r'[\[(](?:[^\])"]|"[^"]*")*[\])]', text)
        return ("multirange", [range_value(piece, column_type[1]) for piece in pieces])
    if kind == "composite":
        items = zip(column_type[1], split(text[1:-1], "", ""))
        return ("composite", [(n, value(t, inner)) for (n, inner), (t, quoted) in items if t or quoted])
    return (kind, text)


# ---- values to bytes

TAGS = {name: tag for tag, name in enumerate(
    "null bool int numeric float text bytea uuid date time timestamp timestamptz timetz interval json jsonb"
    " array range multirange composite enum other".split())}


def encode(item):
    if item is None:
        return b"\0"
    kind, *parts = item
    return bytes([TAGS[kind]]) + payload(kind, parts, item)


def payload(kind, parts, item):
    if kind == "bool":
        return bytes([parts[0]])
    if kind in ("int", "time", "timestamp", "timestamptz"):
        return parts[0].to_bytes(8, "little", signed=True)
    if kind == "numeric":
        return numeric_payload(item)
    if kind == "float":
        return parts[0] if isinstance(parts[0], bytes) else struct.pack("<d", parts[0])
    if kind == "uuid":
        return parts[0]
    if kind == "date":
        return struct.pack("<i", parts[0])
    if kind == "timetz":
        return struct.pack("<qi", *parts)
    if kind == "interval":
        return struct.pack("<iiq", *parts)
    if kind == "bytea":
        return sized(parts[0])
    if kind == "array":
        dimensions, elements = parts
        head = bytes([len(dimensions)]) + b"".join(struct.pack("<Ii", *each) for each in dimensions)
        return sized(head + b"".join(map(encode, elements)))
    if kind == "range":
        return sized(bytes([parts[0]]) + b"".join(map(encode, parts[1])))
    if kind == "multirange":
        return sized(b"".join(map(encode, parts[0])))
    if kind == "composite":
        return sized(b"".join(varint(number) + encode(inner) for number, inner in parts[0]))
    return sized(parts[0].encode())


# ---- what Postgres keeps, and what is hashed

def rewrite(item, change):
    if item is None:
        return None
    kind, *parts = item
    if kind == "array":
        return (kind, parts[0], [rewrite(element, change) for element in parts[1]])
    if kind == "range":
        return (kind, parts[0], [rewrite(bound, change) for bound in parts[1]])
    if kind == "multirange":
        return (kind, [rewrite(piece, change) for piece in parts[0]])
    if kind == "composite":
        return (kind, [(number, rewrite(inner, change)) for number, inner in parts[0]])
    return change(item)


def load_json(text):
    """Containers as lists and tuples, numbers as ("number", text)."""
    return json.loads(text, object_pairs_hook=lambda pairs: tuple(dict(pairs).items()),
                      parse_float=lambda t: ("number", t), parse_int=lambda t: ("number", t))


def dump_json(node, number, string, comma, colon):
    def dump(node):
        if isinstance(node, tuple) and len(node) == 2 and node[0] == "number":
            return number(node[1])
        if isinstance(node, tuple):
            members = sorted(node, key=lambda member: (len(member[0].encode()), member[0].encode()))
            return "{" + comma.join(string(key) + colon + dump(inner) for key, inner in members) + "}"
        if isinstance(node, list):
            return "[" + comma.join(map(dump, node)) + "]"
        return string(node) if isinstance(node, str) else {None: "null", True: "true", False: "false"}[node]
    return dump(node)


def plain_number(text):
    """As numeric's output function writes it."""
    negative, coefficient, power = decimal_parts(text)
    digits = str(coefficient * 10 ** max(power, 0)).rjust(max(-power, 0) + 1, "0")
    whole, fraction = (digits[:power], digits[power:]) if power < 0 else (digits, "")
    return ("-" if negative and coefficient else "") + whole + ("." + fraction if fraction else "")


def canonical_number(text):
    _, kind, _, coefficient, power = numeric(text)
    return ("-" if kind else "") + str(coefficient) + (f"e{power}" if power else "")


def escape(text, short):
    out = ""
    for char in text:
        if char in '"\\':
            out += "\\" + char
        elif char in short:
            out += "\\" + short[char]
        else:
            out += f"{U}{ord(char):04x}" if char < " " else char
    return '"' + out + '"'


SHORT = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


def stored(item, column_type):
    """What Postgres hands out after it took the value."""
    if item is None:
        return None
    kind, inner = item[0], column_type[1] if len(column_type) > 1 else None
    if kind == "array":
        return (kind, item[1], [stored(element, inner) for element in item[2]])
    if kind == "range":
        return (kind, item[1], [stored(bound, inner) for bound in item[2]])
    if kind == "multirange":
        return (kind, [stored(piece, column_type) for piece in item[1]])
    if kind == "composite":
        return (kind, [(number, stored(part, dict(inner)[number])) for number, part in item[1]])
    if kind == "numeric" and len(column_type) == 3 and item[1] < 2:
        return (*item[:2], max(column_type[2], 0), *item[3:])
    if kind == "jsonb":
        return ("jsonb", dump_json(load_json(item[1]), plain_number, lambda t: escape(t, SHORT), ", ", ": "))
    return item


def normal(item):
    def change(item):
        if item[0] == "numeric":
            return (*item[:2], max(0, -item[4]) if item[1] < 2 else 0, *item[3:])
        if item[0] == "float":
            number = struct.unpack("<d", item[1])[0] if isinstance(item[1], bytes) else item[1]
            if number != number:
                return ("float", bytes.fromhex("7ff8000000000000")[::-1])
            return ("float", number if number else 0.0)
        if item[0] == "jsonb":
            node = load_json(item[1])
            return ("jsonb", dump_json(node, canonical_number, lambda t: escape(t, {}), ",", ":"))
        return item
    return rewrite(item, change)


def row(fields):
    return b"".join(varint(number) + encode(item) for number, item in fields if item is not None)


def digest(form):
    return blake3(form, key=KEY).digest()


def place(form):
    """The first eight bytes of the hash by which rows are placed."""
    return blake3(form, derive_key_context="plimsoll position 1").digest()[:8]


# ---- output

def escape_cell(text):
    cell = text.replace("\\", "\\\\")
    for char, letter in (("\t", "t"), ("\n", "n"), ("\r", "r"), ("\0", "0")):
        cell = cell.replace(char, "\\" + letter)
    return cell


HEAD = """\
# Golden corpus of row encoding version 1 (docs/encoding.md), made by generate.py: do not edit.
# A line is a row of one field, column number 1, and the fingerprint key is 00 01 .. 1f.
# name, column type, the value as SQL text (\\N is NULL; \\t \\n \\r \\0 \\\\ are escapes), the kind of error
# where it is refused, wire form, wire form as Postgres hands it out again, digest form, digest,
# the position of a row that this column alone places by its hash.
# "-": there is none; "=": the same as the wire form.
"""


def corpus():
    lines = []
    for name, type_text, text in ACCEPTED:
        column_type = parse_type(type_text)
        item = None if text is None else value(text, column_type)
        wire = row([(1, item)])
        kept = row([(1, stored(item, column_type))])
        form = row([(1, normal(item))])
        assert form == row([(1, normal(stored(item, column_type)))]), name
        same = lambda other: "=" if other == wire else other.hex()
        cell = "\\N" if text is None else escape_cell(text)
        cells = [name, type_text, cell, "-", wire.hex() or "", same(kept), same(form), digest(form).hex(),
                 str(int.from_bytes(place(form), "little", signed=True))]
        lines.append("\t".join(cells))
    for name, type_text, text, kind, wire in REFUSED:
        column_type = parse_type(type_text)
        if wire is True:
            wire = row([(1, value(text, column_type))])
        elif isinstance(wire, tuple):
            wire = row([(1, wire)])
        elif isinstance(wire, str):
            wire = bytes.fromhex(wire)
        cells = [name, type_text, escape_cell(text), kind, wire.hex() if wire else "-", *"----"]
        lines.append("\t".join(cells))
    names = [line.split("\t")[0] for line in lines]
    assert len(names) == len(set(names)), "a name is used twice"
    return HEAD + "\n".join(lines) + "\n"


def example():
    rows = {
        "a": [(1, ("int", 7)), (2, ("text", "a|b")), (3, numeric("1.50"))],
        "b": [(1, ("int", 8)), (2, None), (3, numeric("-12345.6"))],
    }
    lines, wires, items, keyed, total = [], [], [], [], 0
    for name, fields in rows.items():
        wire = row(fields)
        form = row([(number, normal(item)) for number, item in fields])
        key = row(fields[:1])
        total += int.from_bytes(digest(form), "little")
        wires.append(sized(wire))
        item = struct.pack("<q", fields[0][1][1]) + digest(form)
        items.append(item)
        keyed.append(item + sized(key))
        lines += [(f"row {name}, wire form", wire), (f"row {name}, digest form", form),
                  (f"row {name}, digest", digest(form)), (f"row {name}, key", key),
                  (f"row {name}, position by its key", place(key)),
                  (f"row {name}, position by all columns", place(form))]
    count = struct.pack("<I", 2)
    lines += [
        ("fingerprint", (total % 2**256).to_bytes(32, "little")),
        ("upload", b"\1" + count + b"".join(wires)),
        ("items", b"\1\0" + bytes(8) + count + b"".join(items)),
        ("items with keys", b"\1\3" + struct.pack("<q", 9) + count + b"".join(keyed)),
    ]
    out = []
    for name, data in lines:
        text = data.hex(" ")
        out.append(f"{name}:")
        out += ["    " + text[i:i + 96].rstrip() for i in range(0, len(text), 96)]
    return "\n".join(out)


def main():
    (HERE / "encoding-v1.tsv").write_text(corpus(), encoding="utf-8")
    document = HERE.parents[2] / "docs" / "encoding.md"
    text = document.read_text(encoding="utf-8")
    head, _ = text.split("```encoding-example\n")
    document.write_text(f"{head}```encoding-example\n{example()}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
