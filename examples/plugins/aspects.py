"""The task "aspects": what a review says of taste, price and delivery, each good, bad or not mentioned."""

from labeler import Choice, Fields, Label, Task, hookimpl


def said():
    return Choice(
        Label("good", {"ko": "좋음", "en": "Good"}),
        Label("bad", {"ko": "나쁨", "en": "Bad"}),
        Label("not_mentioned", {"ko": "언급 없음", "en": "Not mentioned"}),
    )


LABELS = Fields(
    (Label("taste", {"ko": "맛", "en": "Taste"}), said()),
    (Label("price", {"ko": "가격", "en": "Price"}), said()),
    (Label("delivery", {"ko": "배송", "en": "Delivery"}), said()),
)
GUIDELINES = {
    "ko": "항목마다 좋음, 나쁨, 언급 없음 가운데 하나를 고르세요. 짐작하지 말고 글에 있는 것만 고르세요.",
    "en": "Choose good, bad or not mentioned for each aspect. Choose only what the text says.",
}


@hookimpl
def register_tasks():
    return [Task("aspects", LABELS, {"ko": "항목별 평가", "en": "Aspects"}, GUIDELINES)]
