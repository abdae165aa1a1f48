"""Amounts: a number with its unit, such as 500 g."""

import re
from pathlib import Path

from labeler import LabelError, LabelSchema, Task, hookimpl, most_voted


class Amount(LabelSchema):
    kind = widget = "amount"
    units = ("g", "ml")

    def json_schema(self):
        properties = {"number": {"type": "integer"}, "unit": {"type": "string", "enum": list(self.units)}}
        return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}

    def parse(self, raw, text=None):
        if not isinstance(raw, dict) or set(raw) != {"number", "unit"}:
            raise LabelError("An amount has a number and a unit", "type")
        if type(raw["number"]) is not int or raw["unit"] not in self.units:
            raise LabelError(f"{raw['number']} {raw['unit']} is no amount in {', '.join(self.units)}", "range")
        return {"number": raw["number"], "unit": raw["unit"]}

    def strata(self, value):
        return (value["unit"],)

    def agreement(self, a, b):
        return float(a == b)

    def vote(self, votes):
        return most_voted(votes)

    def render(self, value, language):
        return f"{value['number']} {value['unit']}"

    def read_cell(self, cell):
        found = re.fullmatch(r"(\d+) *(g|ml)", cell) if isinstance(cell, str) else None
        return {"number": int(found[1]), "unit": found[2]} if found else cell


GUIDELINES = {"ko": "내용량을 적어 주세요.", "en": "Write how much is in the pack."}


@hookimpl
def register_tasks():
    return [Task("amount", Amount(), {"ko": "내용량", "en": "Amount"}, GUIDELINES)]


@hookimpl
def register_widgets():
    return [("amount", Path(__file__).parent / "amount")]
