"""Sentiment: what the customer thinks of it overall."""

from labeler import Choice, Label, Task, guideline_files, hookimpl

DEFINITIONS = {
    "positive": {"ko": "전반적으로 만족이 불만보다 크다.", "en": "Overall, good outweighs bad."},
    "neutral": {"ko": "어느 쪽도 뚜렷하지 않거나 평가가 없다.", "en": "Neither side is clear, or nothing is judged."},
    "negative": {"ko": "전반적으로 불만이 만족보다 크다.", "en": "Overall, bad outweighs good."},
}
LABELS = Choice(
    Label("positive", {"ko": "긍정", "en": "Positive"}, DEFINITIONS["positive"], "#2e7d32"),
    Label("neutral", {"ko": "중립", "en": "Neutral"}, DEFINITIONS["neutral"], "#757575"),
    Label("negative", {"ko": "부정", "en": "Negative"}, DEFINITIONS["negative"], "#c62828"),
)


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "긍정·부정", "en": "Sentiment"}
    whole, short = guideline_files(__file__, "sentiment.v2"), guideline_files(__file__, "sentiment-short.v1")
    return [Task("sentiment", LABELS, title, whole, "2", short=short)]
