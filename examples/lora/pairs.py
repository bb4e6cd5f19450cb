"""Instructions and answers that a small model cannot give as it is: an order in words becomes JSON.

usage: pairs.py    writes pairs.txt (200 pairs) and held_out.txt (20 others), as SmolLM2 writes conversations
"""
import json, pathlib, random

ITEMS = {"rye bread": "loaf", "white bread": "loaf", "carrot cake": "slice", "apple pie": "slice", "green tea": "cup",
         "black coffee": "cup", "tomato soup": "bowl", "rice": "bowl", "orange juice": "glass", "cold milk": "glass",
         "olive oil": "bottle", "sparkling water": "bottle", "plum jam": "jar", "honey": "jar"}
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PHRASES = ["Please bring {order}.", "I would like {order}.", "Can I have {order}?", "We need {order}.", "{order}, please.",
           "My friend asked for {order}."]
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def pair(place):
    """An order and its JSON; each `place` below 14 * 12 * 6 * 2 gives another."""
    place, late = divmod(place, 2)
    place, phrase = divmod(place, len(PHRASES))
    item, count = list(ITEMS)[place % len(ITEMS)], place // len(ITEMS) % len(NUMBERS) + 1
    unit = ITEMS[item]
    units = unit if count == 1 else {"loaf": "loaves", "glass": "glasses"}.get(unit, unit + "s")
    order = PHRASES[phrase].format(order=f"{NUMBERS[count - 1]} {units} of {item}" + (" to take away" if late else ""))
    return order[0].upper() + order[1:], json.dumps({"item": item, "unit": unit, "count": count, "away": bool(late)})


def chat(instruction, answer):
    turns = [("system", SYSTEM), ("user", instruction), ("assistant", answer)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


places = random.Random(1).sample(range(len(ITEMS) * len(NUMBERS) * len(PHRASES) * 2), 220)
here = pathlib.Path(__file__).parent
for name, part in [("pairs.txt", places[:200]), ("held_out.txt", places[200:])]:
    (here / name).write_text("".join(chat(*pair(p)) for p in part))
