"""Settings of a folder from a hub: each is honoured, checked against the tensors, known not to matter, or refused.

What a folder says wins over what an importer would assume, and options of the caller win over both. A setting that
nothing here knows may change what the network computes, and so it is refused unless the caller leaves it out by name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.fits import Fit
from common.printable import one_line, shown, shown_key
from common.reading import read_json
from frontend.options import Options
from frontend.pixels import NORMALIZATIONS, Normalization, checked

MOST_CONFIG_BYTES = 16 << 20
"""Limit of a configuration: some name every class of a data set."""

NORMALIZE_HINT = f"--normalize {', '.join(NORMALIZATIONS)}, or MEAN/STD of pixels / 255 such as 0.5/0.5"


@dataclass(frozen=True)
class Check:
    """A setting that must agree with the tensors.

    Attributes:
        setting: file and key, for messages.
        value: what it says.
        fact: name of what the tensors say: a key of the facts that `check_facts` takes.
        hint: what to do where they differ.
    """

    setting: str
    value: Any
    fact: str
    hint: str = "the configuration belongs to another network, or was edited"


@dataclass(frozen=True)
class Told:
    """Facts that a folder tells about the network in it.

    Attributes:
        options: those of the caller, with the gaps filled from the folder.
        pool: tokens that the classifier reads: token, mean, mean-all, or token-mean for the class token beside the
            mean of the patches; None where nothing says it.
        norm_eps: epsilon of the LayerNorms, where neither the caller nor the folder says it.
        checks: settings that the tensors must confirm.
        asks: options that must be given, and why, by their names.
        position: whether there is a table of positions; None where the tensors tell.
        usual_heads: channels of a token, and the attention heads that networks of this name and so many channels have.
        pictures: how pictures of other sizes are made to fit, where that is said and can be done here.
        remarks: what was left out or assumed, for people.
        classes: names of the classes of its classifier; none where they are not told.
    """

    options: Options
    pool: str | None = None
    norm_eps: float | None = None
    checks: tuple[Check, ...] = ()
    asks: Mapping[str, str] = field(default_factory=dict)
    position: bool | None = None
    usual_heads: tuple[int, int] | None = None
    pictures: Fit | None = None
    remarks: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def ask(self) -> None:
        """Refuse to go on without an option that nothing else can tell.

        Raises:
            InputError: naming the option.
        """
        for name, why in self.asks.items():
            if getattr(self.options, name) is None:
                flag = "normalize" if name == "normalization" else name.replace("_", "-")
                hint = NORMALIZE_HINT if flag == "normalize" else f"give it with --{flag}"
                raise InputError(f"{why}: --{flag} needed", hint=hint)


def check_facts(checks: Iterable[Check], facts: Mapping[str, Any]) -> None:
    """Refuse a setting that the tensors contradict; what the facts do not hold is not compared.

    Raises:
        InputError: naming the setting and both values.
    """
    for check in checks:
        found = facts.get(check.fact)
        if found is not None and found != check.value:
            raise InputError(
                f"{check.setting} is {shown(check.value)}, but by the tensors it is {shown(found)} ({check.fact})",
                hint=check.hint,
            )


class Settings:
    """The keys of one JSON object, every one of which is answered for by the time of `finish`.

    Args:
        values: the object.
        where: file, and key of the object in it, for messages.
        ignored: keys that the caller leaves out.
    """

    def __init__(self, values: Mapping[str, Any], where: str, ignored: Collection[str] | None = None) -> None:
        self.where, ignored = where, ignored or ()
        self.left_out = sorted(set(values) & set(ignored))
        self._values = {key: value for key, value in values.items() if key not in ignored}
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def called(self, key: str) -> str:
        """File and key, for messages."""
        return f"{self.where}: {shown_key(key)}"

    def get(self, key: str) -> Any:
        """The value of a key; None where it is absent or null."""
        self._known.add(key)
        return self._values.get(key)

    def skip(self, keys: Iterable[str]) -> None:
        """Keys that do not change what the network computes."""
        self._known.update(keys)

    def refuse(self, key: str, expected: str, hint: str = "") -> InputError:
        """The error for a value that cannot be honoured."""
        return InputError(f"{self.called(key)} is {shown(self._values[key])}, expected {expected}", hint=hint)

    def whole(self, key: str, least: int = 1) -> int | None:
        """A whole number."""
        value = self.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise self.refuse(key, f"a whole number from {least} on")
        return value

    def number(self, key: str) -> float | None:
        """A positive number."""
        value = self.get(key)
        if value is None:
            return None
        if not _is_number(value) or value <= 0:
            raise self.refuse(key, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool | None:
        """True or false; a null, of which programs make one or the other, is refused."""
        self._known.add(key)
        if key not in self._values:
            return default
        value = self._values[key]
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """A text."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self.refuse(key, "a text")
        return value

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """Numbers, one a channel, or one for all, in a list or bare."""
        value = self.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if not values or not all(map(_is_number, values)):
            raise self.refuse(key, "a number, or a list of one a channel")
        return tuple(float(each) for each in values)

    def sides(self, key: str) -> tuple[int, int] | None:
        """Height and width, from a number for both or a list of two."""
        value = self.get(key)
        if value is None:
            return None
        sides = value if isinstance(value, list) else [value, value]
        if len(sides) != 2 or not all(_is_count(side) for side in sides):
            raise self.refuse(key, "a whole number, or a list of height and width")
        return sides[0], sides[1]

    def forbid(self, key: str, why: str, *, allowed: Collection[Any] = (False,)) -> None:
        """Refuse a key whose value asks for what networks here do not have; null and what is empty ask for nothing."""
        value = self.get(key)
        if value in (None, [], {}, "") or any(value is one or value == one for one in allowed):
            return
        raise InputError(f"{self.called(key)} is {shown(value)}: {why}")

    def checks(self, facts: Mapping[str, str]) -> list[Check]:
        """Checks of the keys that are there, given the facts that they must agree with."""
        return [Check(self.called(key), self.get(key), fact) for key, fact in facts.items() if key in self]

    def finish(self) -> None:
        """Refuse keys that nothing has asked for, but those without a value.

        Raises:
            InputError: naming the first few.
        """
        unknown = {
            key: value
            for key, value in self._values.items()
            if key not in self._known and value not in (None, [], {}, "")
        }
        if unknown:
            key, value = next(iter(unknown.items()))
            more = f" (and {len(unknown) - 1} more unknown settings)" if len(unknown) > 1 else ""
            names = ",".join(shown_key(name) for name in list(unknown)[:8])
            raise InputError(
                f"{self.called(key)} is {shown(value)}: a setting that is not known here, and so may change what the "
                f"network computes{more}",
                hint=f"if the network is the same without it: --ignore {names}",
            )


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    if not path.exists():
        return {}
    data = read_json(path, MOST_CONFIG_BYTES)
    if not isinstance(data, dict):
        raise InputError(f"{one_line(path)}: holds a {type(data).__name__}, expected an object")
    return data


def normalization_of(
    settings: Settings, mean_key: str, std_key: str, scale: float = 255.0
) -> Normalization | str:
    """The normalisation with these keys, or why it must be asked for.

    Args:
        settings: the object that holds them.
        mean_key: key of the mean.
        std_key: key of the standard deviation.
        scale: the pixel value that stands for 1.
    """
    mean, std = settings.numbers(mean_key), settings.numbers(std_key)
    for key, values in ((mean_key, mean), (std_key, std)):
        if values is None:
            return f"{settings.where}: no {key}, which the normalisation needs"
    assert mean is not None and std is not None
    brightest = round(255 / scale, 6)
    if not all(0 <= value <= brightest for value in mean) or not all(value * scale > 1 for value in std):
        return (
            f"{settings.called(mean_key)} and {std_key} are {shown(settings.get(mean_key))} and "
            f"{shown(settings.get(std_key))}, which do not fit pixels from 0 to {brightest:g}"
        )
    length = max(len(mean), len(std))
    if not {len(mean), len(std)} <= {1, length}:
        raise InputError(f"{settings.called(mean_key)} has {len(mean)} values, but {std_key} has {len(std)}")
    wide = [values * length if len(values) == 1 else values for values in (mean, std)]
    return checked(wide[0], wide[1], scale, f"{settings.where}: {mean_key}, {std_key}")


def left_out(*files: Settings) -> tuple[str, ...]:
    """A remark on the settings that the caller leaves out, if there are any."""
    names = [name for settings in files for name in settings.left_out]
    return (f"left out, as --ignore says: settings {', '.join(names)}",) if names else ()


def unknown_fit(settings: Settings, keys: Iterable[str]) -> tuple[str, ...]:
    """A remark on a way of making pictures fit that nothing here knows."""
    said = [f"{key} {shown(settings.get(key))}" for key in keys if key in settings]
    return (
        (f"pictures were made to fit in a way that --resize does not know: {', '.join(said)}",)
        if said
        else ()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
