"""Phone numbers are masked before a record is stored, and reviews that are nothing but one are refused."""

import dataclasses
import re

from labeler import hookimpl

PHONE = re.compile(r"(?<!\d)01[016789][-. ]?\d{3,4}[-. ]?\d{4}(?!\d)")


@hookimpl
def prepare_record(record):
    text = PHONE.sub("[전화번호]", record.text)
    if text.strip() == "[전화번호]":
        return "it is nothing but a phone number"
    return dataclasses.replace(record, text=text) if text != record.text else None
