"""Emotion: the 43 emotions of KOTE (Korean Online That-gul Emotions, arXiv:2205.05300) and none, several at once."""

from labeler import Choices, Label, Task, guideline_files, hookimpl

NONE = "없음"
PLEASANT, MIXED, UNPLEASANT = "#2e7d32", "#757575", "#c62828"

# Name, English title, color, Korean and English definition. The order is ours: KOTE's files number them otherwise.
EMOTIONS = (
    ("불평/불만", "Complaint", UNPLEASANT, "마음에 들지 않아 투덜댄다", "Grumbles that something is not right"),
    ("화남/분노", "Anger", UNPLEASANT, "화가 난다. 따지거나 소리를 높이기도 한다", "Is angry; may accuse or shout"),
    ("안타까움/실망", "Disappointment", UNPLEASANT, "기대에 못 미쳐 아쉽다", "Hoped for more and feels let down"),
    ("짜증", "Irritation", UNPLEASANT, "거슬리고 성가셔서 신경질이 난다", "Is annoyed by something that grates"),
    ("어이없음", "Incredulity", UNPLEASANT, "말이 안 되어 기가 막힌다", "Finds it absurd and cannot believe it"),
    ("서러움", "Hurt", UNPLEASANT, "푸대접을 받아 서럽고 억울하다", "Feels wronged and sorry for oneself"),
    ("환영/호의", "Favor", PLEASANT, "마음에 들어 반기고 좋게 본다", "Likes it and welcomes it"),
    ("감동/감탄", "Admiration", PLEASANT, "훌륭해서 감탄하거나 마음이 움직인다", "Is impressed or moved by it"),
    ("존경", "Respect", PLEASANT, "사람이나 솜씨를 우러러본다", "Looks up to a person or a skill"),
    ("기대감", "Anticipation", PLEASANT, "앞으로의 일을 기대한다", "Looks forward to what comes"),
    ("비장함", "Resolve", MIXED, "굳게 마음먹고 각오한다", "Is grimly determined"),
    ("신기함/관심", "Curiosity", PLEASANT, "새롭고 신기해서 눈길이 간다", "Finds it new and interesting"),
    ("아껴주는", "Affection", PLEASANT, "누군가를 아끼고 챙긴다", "Cares for someone tenderly"),
    ("불쌍함/연민", "Pity", UNPLEASANT, "남이 딱하고 가엾다", "Feels sorry for somebody else"),
    ("안심/신뢰", "Trust", PLEASANT, "마음이 놓이고 믿음이 간다", "Feels relieved, trusts it"),
    ("의심/불신", "Distrust", UNPLEASANT, "믿지 못하고 의심한다", "Doubts it or does not believe it"),
    ("한심함", "Contempt", UNPLEASANT, "하는 짓이 한심해 보인다", "Finds a conduct pathetic"),
    ("증오/혐오", "Hatred", UNPLEASANT, "몹시 미워하고 꼴도 보기 싫다", "Hates it and cannot stand it"),
    ("우쭐댐/무시함", "Arrogance", MIXED, "잘난 체하거나 남을 깔본다", "Boasts or looks down on others"),
    ("즐거움/신남", "Delight", PLEASANT, "신나고 재미있어 들떠 있다", "Has fun and is excited"),
    ("흐뭇함(귀여움/예쁨)", "Fondness", PLEASANT, "귀엽거나 예뻐서 흐뭇하다", "Is charmed by it"),
    ("행복", "Happiness", PLEASANT, "더 바랄 것 없이 행복하다", "Is deeply happy, wants nothing more"),
    ("깨달음", "Realization", MIXED, "몰랐던 것을 알게 된다", "Comes to see something"),
    ("기쁨", "Joy", PLEASANT, "좋은 일이 있어 기쁘고 만족스럽다", "Is glad and pleased"),
    ("지긋지긋", "Fed up", UNPLEASANT, "되풀이되어 넌더리가 난다", "Has had enough of the same again"),
    ("당황/난처", "Bewilderment", UNPLEASANT, "뜻밖이라 어쩔 줄 모른다", "Is taken aback or in an awkward spot"),
    ("경악", "Shock", UNPLEASANT, "너무 심해서 충격을 받는다", "Is appalled"),
    ("놀람", "Surprise", MIXED, "예상과 달라 놀란다", "Did not expect it, for better or worse"),
    ("역겨움/징그러움", "Disgust", UNPLEASANT, "속이 뒤집히고 징그럽다", "Is revolted or sickened"),
    ("고마움", "Gratitude", PLEASANT, "고맙다고 느낀다", "Is thankful"),
    ("뿌듯함", "Pride", PLEASANT, "해낸 일이나 고른 것이 자랑스럽다", "Is proud of a deed or a choice"),
    ("불안/걱정", "Worry", UNPLEASANT, "잘못될까 걱정한다", "Fears that it may go wrong"),
    ("힘듦/지침", "Exhaustion", UNPLEASANT, "고되어 지친다", "Is worn out"),
    ("부담/안_내킴", "Reluctance", UNPLEASANT, "부담스럽거나 내키지 않는다", "Finds it a burden or is loath to do it"),
    ("부끄러움", "Embarrassment", UNPLEASANT, "민망하고 부끄럽다", "Feels ashamed before others"),
    ("패배/자기혐오", "Defeat", UNPLEASANT, "졌다고 느끼거나 자신이 싫다", "Feels beaten or dislikes oneself"),
    ("재미없음", "Boredom", UNPLEASANT, "지루하고 재미가 없다", "Finds it dull"),
    ("편안/쾌적", "Comfort", PLEASANT, "편하고 쾌적하다", "Feels at ease"),
    ("절망", "Despair", UNPLEASANT, "희망이 없다고 느낀다", "Has lost hope"),
    ("귀찮음", "Bother", UNPLEASANT, "번거로워서 하기 싫다", "Finds it too much trouble"),
    ("슬픔", "Sadness", UNPLEASANT, "슬프고 마음이 아프다", "Is sad"),
    ("공포/무서움", "Fear", UNPLEASANT, "무섭고 겁이 난다", "Is afraid"),
    ("죄책감", "Guilt", UNPLEASANT, "잘못한 것 같아 미안하다", "Feels to blame"),
    (NONE, "None", MIXED, "드러나는 감정이 없다. 이것 하나만 고른다", "No emotion shows; chosen alone"),
)


@hookimpl
def register_tasks() -> list[Task]:
    title = {"ko": "감정", "en": "Emotion"}
    # A name as KOTE spells it has no space; a title is read by people.
    labels = [
        Label(name, {"ko": name.replace("_", " "), "en": en}, {"ko": ko, "en": on}, color)
        for name, en, color, ko, on in EMOTIONS
    ]
    schema = Choices(*labels, minimum=1, exclusive=NONE)
    return [
        Task(
            "emotion",
            schema,
            title,
            guideline_files(__file__, "emotion.v2"),
            "2",
            short=guideline_files(__file__, "emotion-short.v1"),
        )
    ]
