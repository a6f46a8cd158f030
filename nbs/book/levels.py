"How near verdicts lie to the limits of their rules, and what remains of them if all are counted."

from collections.abc import Iterable, Mapping

#: A call is close where the end of an interval that decides lies nearer to the limit than this
#: share of the interval's width. Other seeds of the resampling alone move an end by several
#: hundredths of the width (claims 27 and 75, which `test_other_seeds_keep_close_calls` tries).
CLOSE = 0.1

HOLDS, FAILS = ("reproduced", "agrees"), ("not reproduced", "disagrees")
OPEN = ("undecided", "underpowered")
#: Rules whose intervals are at 90 %, and those whose intervals hold jointly at 95 %.
AT_90, JOINT = ("no gain", "same", "all same", "level"), ("order", "lowest loss", "highest loss")


def limits(number: Mapping) -> set[float]:
    "The limits of a number's rule: between which it holds, or the printed value."
    return {number["from"], number["to"]} - {None}


def inside(number: Mapping) -> bool:
    "Whether a whole interval lies where the claim holds; a printed value must lie in it."
    low, high = number["from"], number["to"]
    if low == high:
        return number["low"] <= low <= number["high"]
    return (low is None or number["low"] > low) and (high is None or number["high"] < high)


def outside(number: Mapping) -> bool:
    "Whether a whole interval lies where the claim fails."
    low, high = number["from"], number["to"]
    return (high is not None and number["low"] > high) or (low is not None and number["high"] < low)


def nearest(number: Mapping) -> tuple[float, str, float]:
    "The end of an interval that lies nearest to a limit: distance in widths, end, limit."
    width = number["high"] - number["low"]
    return min(
        (abs(number[end] - limit) / width if width else float("inf"), end, limit)
        for end in ("low", "high")
        for limit in limits(number)
    )


def deciding(entry: Mapping) -> dict | None:
    "The number on which an entry's verdict hangs; None where no interval decides."
    verdict, numbers = entry["verdict"], entry["numbers"]
    if not numbers or any(n["low"] is None for n in numbers):
        return None
    if verdict in FAILS:  # one that fails is enough: the clearest
        return max(filter(outside, numbers), key=nearest, default=None)
    left = numbers if verdict in HOLDS else [n for n in numbers if not (inside(n) or outside(n))]
    return min(left, key=nearest, default=None) if verdict in (*HOLDS, *OPEN) else None


def close_call(entry: Mapping) -> str:
    "Which end of an interval lies how near to the limit; empty unless the call is close."
    number = deciding(entry)
    if number is None or nearest(number)[0] >= CLOSE:
        return ""
    _, end, limit = nearest(number)
    n, name = digits(number), {"low": "lower", "high": "upper"}[end]
    side = "above" if number[end] > limit else "below"
    printed = "printed value" if number["from"] == number["to"] else "limit"
    return (
        f"the {name} end, {number[end]:.{n}f}, lies {side} the {printed} {limit:.{n}f} by "
        f"{nearest(number)[0]:.0%} of the interval's width".replace("%", " %")
    )


def digits(number: Mapping) -> int:
    "The fewest digits, from 3, with which each end is on its side of each limit."
    for n in range(3, 7):
        pairs = [(number[end], limit) for end in ("low", "high") for limit in limits(number)]
        if all(round(end, n) != round(limit, n) for end, limit in pairs if end != limit):
            return n
    return 7


def shown(entry: Mapping, parts: list[str]) -> list[str]:
    "What was found, each number with as many digits as its verdict needs."
    told = []
    for part, number in zip(parts, entry["numbers"], strict=True):
        if number["low"] is not None and (n := digits(number)) > 3:
            sign = "+" if "+" in part else ""
            value, low, high = (f"{number[k]:{sign}.{n}f}" for k in ("value", "low", "high"))
            part = f"{value} [{low}, {high}]"
        told.append(part)
    return told


def level(rule: str) -> float:
    "The level of the intervals of a rule; joint for an order."
    return 0.9 if rule in AT_90 else 0.95


def chance_of_error(entry: Mapping) -> float:
    "With which probability a test decides for the wrong side at most, by its level."
    printed = any(n["from"] == n["to"] for n in entry["numbers"])
    return 0.05 if printed or level(entry["rule"]) == 0.9 else 0.025


def p_value(entry: Mapping) -> float:
    "The p-value of what an entry excludes, read off its intervals as if these were normal."
    from scipy.stats import norm

    numbers, rule = entry["numbers"], entry["rule"]
    joint = rule in JOINT
    found = []
    for number in numbers:
        quantile = norm.isf((1 - level(rule)) / 2 / (len(numbers) if joint else 1))
        away = []
        for limit in limits(number):
            near = "low" if limit < number["value"] else "high"
            half = abs(number["value"] - number[near])
            away.append(abs(number["value"] - limit) / half * quantile if half else float("inf"))
        sides = 1 if level(rule) == 0.9 else 2
        found.append(sides * norm.sf(min(away)))
    if entry["verdict"] in FAILS:  # any of them would have been enough
        return min(1.0, len(numbers) * min(found))
    return min(1.0, max(found) * (len(numbers) if joint else 1))


def remaining(p_values: Mapping, tests: int) -> tuple[set, set]:
    "Which findings stay among a number of tests: by Holm, and by Benjamini and Hochberg, at 5 %."
    ordered = sorted(p_values, key=p_values.__getitem__)
    by_holm, by_rate = set(), set()
    for rank, key in enumerate(ordered):
        if p_values[key] > 0.05 / (tests - rank):
            break
        by_holm.add(key)
    for rank, key in enumerate(ordered, 1):
        if p_values[key] <= 0.05 * rank / tests:
            by_rate = set(ordered[:rank])
    return by_holm, by_rate


def tests_of(entries: Iterable[Mapping]) -> list[dict]:
    "The entries that went through the gate with an interval, further packs included."
    single = [one for entry in entries for one in (entry, *entry["also"])]
    return [
        one
        for one in single
        if one["verdict"] in (*HOLDS, *FAILS, *OPEN)
        and one["numbers"]
        and all(n["low"] is not None and limits(n) for n in one["numbers"])
    ]


def excludes(entry: Mapping) -> bool:
    "Whether a verdict rests on what an interval excludes, not on what it does not exclude."
    printed = any(n["from"] == n["to"] for n in entry["numbers"])
    return entry["verdict"] in FAILS or (entry["verdict"] in HOLDS and not printed)
