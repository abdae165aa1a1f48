"""Usage: how people use, cook, eat or serve it, for whom and when."""

from labeler import Task, Text, guideline_files, hookimpl


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "사용 방식", "en": "Usage"}
    schema = Text(minimum=0, maximum=300, sentences=2)
    return [
        Task(
            "usage",
            schema,
            title,
            guideline_files(__file__, "usage.v2"),
            "2",
            k=4,
            short=guideline_files(__file__, "usage-short.v1"),
        )
    ]
