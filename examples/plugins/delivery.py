"""The task "delivery": is there a complaint about the delivery?"""

from labeler import Choice, Label, Task, hookimpl

LABELS = Choice(
    Label(
        "complaint",
        {"ko": "배송 불만", "en": "Complaint"},
        {"ko": "배송이 늦거나 잘못되거나 포장이 상했다고 한다.", "en": "The delivery was late, wrong or damaged."},
    ),
    Label(
        "no_complaint",
        {"ko": "불만 없음", "en": "No complaint"},
        {"ko": "배송에 만족하거나 배송 이야기가 없다.", "en": "The delivery was fine, or is not mentioned."},
    ),
)
GUIDELINES = {
    "ko": "배송에 대한 불만이 있는지 고르세요. 상품에 대한 불만은 배송 불만이 아닙니다.",
    "en": "Choose whether the review complains about the delivery. A complaint about the product is none.",
}


@hookimpl
def register_tasks():
    return [Task("delivery", LABELS, {"ko": "배송 불만", "en": "Delivery complaint"}, GUIDELINES)]
