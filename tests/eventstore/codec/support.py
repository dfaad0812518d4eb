"""Values and types that the tests of the codec share."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, NamedTuple

import pydantic


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    left: int
    right: Any = None


@dataclasses.dataclass
class Note:
    text: str
    tags: list[Any] = dataclasses.field(default_factory=list)
    size: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.text)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    name: str
    items: list[Any] = []
    _secret: int = 7

    @pydantic.field_validator("name")
    @classmethod
    def not_evil(cls, value: str) -> str:
        if value == "evil":
            raise ValueError("evil")
        return value


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


CLASSES: list[type] = [Colour, Rights, Level, Pair, Note, Point, Model]


def chat(turns: int) -> list[dict[str, Any]]:
    text = "Please let me know if the order has been approved before the end of the week. "
    return [{"role": "user", "content": f"{i}: {text * 3}"} for i in range(turns)]
