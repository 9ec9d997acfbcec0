"""One JSON text, and the objects in it, with refusals that name the byte or the field."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import msgspec

from telegram_hybrid.errors import InvalidInput


def decode(field: str, text: bytes | str, *, offset: int = 0) -> Any:
    """Return the value of a JSON text; `offset` is the byte of the file at which it begins.

    msgspec decodes. What it refuses goes to the slower `json`, which says where the error is, and
    lets lone surrogates pass to the checks that name the field. Raises `InvalidInput`.
    """
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise InvalidInput(field, "nested too deeply") from error
    except (msgspec.DecodeError, ValueError):
        return _explain(field, text, offset)


def json_object(field: str, value: Any) -> dict[str, Any]:
    """Accept a JSON object. Raises `InvalidInput`."""
    if not isinstance(value, dict):
        what = "missing" if value is None else f"expected an object, got {type(value).__name__}"
        raise InvalidInput(field, what)
    return value


def _explain(field: str, text: bytes | str, offset: int) -> Any:
    try:
        string = text.decode() if isinstance(text, bytes) else text
        return json.loads(string, parse_constant=_refuse, parse_float=_float)
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 at byte {offset + error.start:,}"
        raise InvalidInput(field, problem) from error
    except json.JSONDecodeError as error:
        byte = offset + len(error.doc[: error.pos].encode(errors="surrogatepass"))
        raise InvalidInput(field, f"is not JSON at byte {byte:,}: {error.msg}") from error
    except RecursionError as error:
        raise InvalidInput(field, "nested too deeply") from error
    except ValueError as error:
        raise InvalidInput(field, f"is not JSON: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _float(digits: str) -> float | str:
    """Return a float, or the digits of a number beyond floats."""
    number = float(digits)
    return digits if math.isinf(number) else number
