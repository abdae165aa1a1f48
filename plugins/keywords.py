"""Keywords: the phrases of the review that show what was judged and how, character for character."""

from labeler import Keywords, Task, guideline_files, hookimpl


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "키워드", "en": "Keywords"}
    return [
        Task(
            "keywords",
            Keywords(maximum=10),
            title,
            guideline_files(__file__, "keywords.v2"),
            "2",
            k=6,
            short=guideline_files(__file__, "keywords-short.v1"),
        )
    ]
