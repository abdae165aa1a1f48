"""Summary by polarity: one sentence for the good points and one for the bad ones."""

from labeler import Fields, Label, Task, Text, guideline_files, hookimpl

GOOD = Label(
    "good",
    {"ko": "좋은 점", "en": "Good points"},
    {"ko": "리뷰에서 칭찬한 점을 한 문장으로", "en": "One sentence on what the review praises"},
    "#2e7d32",
)
BAD = Label(
    "bad",
    {"ko": "아쉬운 점", "en": "Bad points"},
    {"ko": "리뷰에서 아쉽다고 한 점을 한 문장으로", "en": "One sentence on what the review criticises"},
    "#c62828",
)


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "장단점 요약", "en": "Summary by polarity"}
    schema = Fields((GOOD, Text(maximum=200)), (BAD, Text(maximum=200)))
    return [
        Task(
            "summary_polarity",
            schema,
            title,
            guideline_files(__file__, "summary_polarity.v2"),
            "2",
            k=4,
            short=guideline_files(__file__, "summary_polarity-short.v1"),
        )
    ]
