"""Summary by category: one sentence for each category that the review mentions."""

from labeler import Fields, Label, Task, Text, guideline_files, hookimpl

# Name, Korean and English title, Korean and English definition; the names are the headings of the task categories.
PARTS = (
    ("taste", "맛", "Taste", "맛, 단맛, 간, 식감", "Flavor, sweetness, seasoning, texture"),
    ("quality", "품질", "Quality", "신선도, 익은 정도, 하자, 성능, 냄새, 모양", "Freshness, faults, effect, looks"),
    ("price", "가격", "Price", "가격과 가성비, 할인", "Price, value for money, discounts"),
    ("amount", "양·크기", "Amount and size", "양, 개수, 크기", "Quantity, count, size"),
    ("packaging", "포장", "Packaging", "포장 상태, 쓰레기, 여닫기", "Condition, waste, opening and portions"),
    ("delivery", "배송", "Delivery", "배송 속도, 파손, 오배송, 배송 기사", "Speed, damage, wrong items, courier"),
    ("convenience", "편의", "Convenience", "조리, 사용, 보관의 편의", "Ease of cooking, use and storage"),
    ("ingredients", "원재료", "Ingredients", "원산지, 영양, 건강, 첨가물", "Origin, nutrition, health, additives"),
    ("service", "서비스", "Service", "고객센터, 환불, 교환, 사진·설명", "Support, refunds, photos, descriptions"),
    ("loyalty", "재구매·추천", "Loyalty", "재구매나 추천 의향", "Will buy again or recommend, or not"),
)


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "카테고리별 요약", "en": "Summary by category"}
    labels = [Label(name, {"ko": ko, "en": en}, {"ko": about, "en": on}) for name, ko, en, about, on in PARTS]
    schema = Fields(*((label, Text(maximum=200)) for label in labels))
    return [
        Task(
            "summary_category",
            schema,
            title,
            guideline_files(__file__, "summary_category.v2"),
            "2",
            k=4,
            short=guideline_files(__file__, "summary_category-short.v1"),
        )
    ]
