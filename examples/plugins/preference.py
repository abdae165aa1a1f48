"""The task "preference": which of two answers is better. Import with --part question=... --part A=... --part B=..."""

from labeler import Label, Pairwise, Task, hookimpl

LABELS = Pairwise(Label("A", {"ko": "답 A", "en": "Answer A"}), Label("B", {"ko": "답 B", "en": "Answer B"}))
GUIDELINES = {
    "ko": "질문에 더 도움이 되는 답을 고르세요. 둘이 비슷하면 비김을 고르세요.",
    "en": "Choose the answer that helps more with the question; a tie if both help as much.",
}


@hookimpl
def register_tasks():
    return [Task("preference", LABELS, {"ko": "더 나은 답", "en": "Better answer"}, GUIDELINES)]
