"""The task "entities": products, brands and places, marked in the text."""

from labeler import Label, Spans, Task, hookimpl

LABELS = Spans(
    Label("product", {"ko": "상품", "en": "Product"}),
    Label("brand", {"ko": "브랜드", "en": "Brand"}),
    Label("place", {"ko": "장소", "en": "Place"}),
)
GUIDELINES = {
    "ko": "상품, 브랜드, 장소 이름을 글에 있는 그대로 표시하세요. 조사는 빼세요.",
    "en": "Mark the names of products, brands and places as they stand in the text.",
}


@hookimpl
def register_tasks():
    return [Task("entities", LABELS, {"ko": "이름", "en": "Entities"}, GUIDELINES)]
