"""Categories: what the review speaks about, as subcategories of ten headings."""

from labeler import Choices, Label, Task, guideline_files, hookimpl

# Under each heading (name, titles, color) its subcategories: name, titles, definitions with a phrase that counts.
CATEGORIES = {
    ("taste", "맛", "Taste", "#a0298f"): (
        ("flavor", "맛·풍미", "Flavor", "맛 전반과 풍미: “국물이 진해요”", "Taste in general: “rich broth”"),
        ("sweetness", "단맛·당도", "Sweetness", "단 정도: “당도가 높아요”", "How sweet it is: “not sweet at all”"),
        ("seasoning", "간·짠맛·매운맛", "Seasoning", "간, 짠맛, 매운맛: “좀 짜요”", "Salt, spice, heat: “too salty”"),
        ("texture", "식감", "Texture", "씹는 느낌: “아삭해요”", "How it feels in the mouth: “crisp”"),
    ),
    ("quality", "품질", "Quality", "#3949ab"): (
        ("freshness", "신선도", "Freshness", "싱싱함이나 상함: “곰팡이가 폈어요”", "Fresh or spoiled: “moldy”"),
        ("ripeness", "숙성·익은 정도", "Ripeness", "익은 정도: “덜 익었어요”", "Ripe or fermented: “still hard”"),
        ("defect", "하자·이물·고장", "Defect", "하자, 이물, 고장: “머리카락이 나옴”", "Fault, foreign: “a hair”"),
        ("performance", "성능·효과", "Performance", "제 기능을 하는지: “잘 닦여요”", "How well it works: “absorbs”"),
        ("smell", "냄새·향", "Smell", "냄새와 향: “비닐 냄새가 나요”", "Smell or scent: “light scent”"),
        ("appearance", "모양·색·디자인", "Appearance", "보기 좋은지: “너무 예뻐요”", "How it looks: “so pretty”"),
    ),
    ("price", "가격", "Price", "#1565c0"): (
        ("value", "가성비·가격", "Value", "가격과 가성비: “이 값이면 만족”", "Price and its worth: “worth it”"),
        ("discount", "할인·행사", "Discount", "할인과 행사: “원플러스원이라”", "Sales and offers: “on offer”"),
    ),
    ("amount", "양·크기", "Amount and size", "#ef6c00"): (
        ("quantity", "양·개수", "Quantity", "양, 무게, 개수: “둘이 충분해요”", "How much or many: “plenty for two”"),
        ("size", "크기", "Size", "낱개의 크기: “알이 작아요”", "The size of one piece: “tiny”"),
    ),
    ("packaging", "포장", "Packaging", "#4e342e"): (
        ("condition", "포장 상태", "Condition", "포장의 꼼꼼함: “뽁뽁이까지”", "How it is packed: “well wrapped”"),
        ("waste", "과대포장·쓰레기", "Waste", "과대포장: “쓰레기가 더 많아요”", "Too much packing: “all that plastic”"),
        ("opening", "개봉·소분 편의", "Opening", "여닫기와 소분: “잘 뜯어져요”", "Opening, portions: “easy to tear”"),
    ),
    ("delivery", "배송", "Delivery", "#6a1b9a"): (
        ("speed", "배송 속도", "Speed", "배송의 빠르기: “하루 만에 왔어요”", "How fast it came: “next day”"),
        ("damage", "배송 중 파손·녹아내림", "Damage", "깨지거나 녹거나 샘: “녹았어요”", "Broken, melted, leaked"),
        ("accuracy", "오배송·누락", "Accuracy", "오배송과 누락: “하나가 빠졌어요”", "Wrong or missing: “one missing”"),
        ("handling", "배송 기사·문 앞", "Handling", "기사와 둔 곳: “던져두고 갔어요”", "Courier: “left in the rain”"),
    ),
    ("convenience", "편의", "Convenience", "#00838f"): (
        ("cooking", "조리 편의", "Cooking", "조리의 쉬움: “끓이면 끝”", "How easy to cook: “ten minutes, one pot”"),
        ("use", "사용 편의", "Use", "쓰거나 먹기 편함: “닦기 귀찮아요”", "How handy in use: “hard to clean”"),
        ("storage", "보관", "Storage", "보관과 소비기한: “쟁여두기 좋아요”", "Keeping, shelf life: “keeps a week”"),
    ),
    ("ingredients", "원재료", "Ingredients", "#827717"): (
        ("origin", "원산지·원재료", "Origin", "원산지와 원재료: “국산 콩이라”", "Where and what from: “local beans”"),
        ("health", "영양·건강·첨가물", "Health", "영양, 건강, 첨가물: “속이 편해요”", "Health, additives: “no MSG”"),
    ),
    ("service", "서비스", "Service", "#546e7a"): (
        ("support", "고객센터·환불·교환", "Support", "문의, 환불, 교환: “답이 없어요”", "Help, refunds: “no reply”"),
        ("information", "사진·설명", "Information", "실물과 다름: “사진과 딴판”", "“Not as in the photo”"),
    ),
    ("loyalty", "재구매·추천", "Loyalty", "#757575"): (
        ("repurchase", "재구매·추천 의향", "Repurchase", "또 살지, 남에게 권할지: “강추”", "Buy again: “never again”"),
    ),
}


def labels() -> list[Label]:
    headings, leaves = [], []
    for (heading, ko, en, color), subcategories in CATEGORIES.items():
        headings.append(Label(heading, {"ko": ko, "en": en}, color=color))
        for name, title_ko, title_en, about, on in subcategories:
            titles = {"ko": title_ko, "en": title_en}
            leaves.append(Label(f"{heading}/{name}", titles, {"ko": about, "en": on}, color, heading))
    return headings + leaves


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "카테고리", "en": "Categories"}
    return [
        Task(
            "categories",
            Choices(*labels()),
            title,
            guideline_files(__file__, "categories.v2"),
            "2",
            short=guideline_files(__file__, "categories-short.v1"),
        )
    ]
