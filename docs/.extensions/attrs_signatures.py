"""Signatures of attrs classes, which Griffe, unlike those of dataclasses, does not work out."""

from typing import Any

import griffe

_DECORATORS = ("attrs.frozen", "attrs.define")


class AttrsSignatures(griffe.Extension):
    """Give a class made by `attrs.frozen` or `attrs.define` the `__init__` that attrs gives it."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add the `__init__`, unless the class is not attrs' or has one of its own."""
        decorator = next((d for d in cls.decorators if d.callable_path in _DECORATORS), None)
        if decorator is None or "__init__" in cls.members:
            return
        keywords_only = "kw_only=True" in str(decorator.value)
        fields = [
            item
            for item in cls.members.values()
            if isinstance(item, griffe.Attribute)
            and item.annotation is not None
            and "property" not in item.labels
            and "init=False" not in str(item.value)
        ]
        init = griffe.Function("__init__", parameters=griffe.Parameters(), parent=cls)
        init.parameters.add(griffe.Parameter("self"))
        for field in fields:
            init.parameters.add(
                griffe.Parameter(
                    field.name,
                    annotation=field.annotation,
                    default=_default(field.value),
                    kind=griffe.ParameterKind.keyword_only
                    if keywords_only
                    else griffe.ParameterKind.positional_or_keyword,
                )
            )
        cls.set_member("__init__", init)


def _default(value: Any) -> Any:
    """Return what a reader should see as the default of a field; None if it has none."""
    if not isinstance(value, griffe.ExprCall) or value.canonical_path != "attrs.field":
        return value
    for argument in value.arguments:
        if isinstance(argument, griffe.ExprKeyword):
            if argument.name == "default":
                return argument.value
            if argument.name == "factory":
                return f"{argument.value}()"
    return None
