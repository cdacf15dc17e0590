"""Mails with the customer's own words in them, and messages that only look like such mails."""

from __future__ import annotations

ASK = "Where is my parcel?"

QUOTED = [
    (f"{ASK}\n> We sent it on Monday.\n> Regards", ASK),
    (f"> We sent it.\n{ASK}", ASK),
    (f"{ASK}\n\nOn Mon, 3 Jun 2024 at 10:12, Ann <ann@shop.example> wrote:\n> Hello\n> Ann", ASK),
    (f"{ASK}\n\nOn Mon, 3 Jun 2024 at 10:12,\nAnn <ann@shop.example>\nwrote:\n> Hello", ASK),
    (f"{ASK}\n\nOn 3 Jun 2024, Ann wrote:\nHello, not quoted by a sign", ASK),
    (f"{ASK}\nAm 03.06.2024 um 10:12 schrieb Ann <ann@shop.example>:\n> Hallo", ASK),
    (f"{ASK}\nLe 3 juin 2024 à 10:12, Ann a écrit :\n> Bonjour", ASK),
    (f"{ASK}\n-----Original Message-----\nFrom: Ann\nHello", ASK),
    (f"{ASK}\n---- Forwarded message ----\nHello", ASK),
    (f"{ASK}\nBegin forwarded message:\nHello", ASK),
    (f"{ASK}\n\nFrom: Ann <a@shop.example>\nSent: Monday\nTo: Me\nSubject: Parcel\n\nHello", ASK),
    # Answered line by line: what is not quoted stays.
    ("On 3 Jun 2024, Ann wrote:\n> Which one?\nNumber 12.\n> When?\nNow.", "Number 12.\nNow."),
]  # fmt: skip

NOT_QUOTED = [
    "On Monday my landlord wrote:\nyou owe me 20",
    "My balance is > 100 but the card was declined",
    "I paid\nFrom: London\nand got nothing",
    "The original message was lost, can you send it again?",
    "On my statement it says 12:30, who wrote: that?",
]

SIGNED = [
    (f"{ASK}\n-- \nAnn Example\nShop Ltd", ASK),
    (f"{ASK}\n--\nAnn", ASK),
    (f"{ASK}\n\nSent from my iPhone", ASK),
    (f"{ASK}\nSent from my Samsung Galaxy S22 Ultra.", ASK),
    (f"{ASK}\nGet Outlook for Android", ASK),
    (f"{ASK}\nVon meinem iPhone gesendet", ASK),
    (f"{ASK}\n\nBest regards,\nAnn Example\n+44 20 7946 0000", ASK),
    (f"{ASK}\nKind regards\nAnn\n\nSent from my Galaxy", ASK),
    (f"{ASK}\nThanks in advance!\nAnn", ASK),
    (f"{ASK}\nMit freundlichen Grüßen\nAnn", ASK),
]

NOT_SIGNED = [
    "Thanks, but where is my parcel?",
    "Best regards,\nand one more thing: where is my parcel?",
    "Thank you\nI still wait for the refund of last month which you promised me on Friday",
    "Sent from my old address, the parcel never came",
    "No answer yet.\nSent from my phone but nothing came",
    "Was ist los?\nVon meinem Handy kann ich nicht bezahlen",
    "I sent from my iPhone\nSent from my iPhone\nand nothing happened",
    "First this.\n--\n" + "A long second half." * 40,
    "The best\nway to reach you?",
    "Regards\n" + "\n".join(["line"] * 7),
]

# Of further languages: where a mail client's words are the mark, and nothing else.
NEITHER = [
    "Tak for hjælpen, men hvor er min pakke?",
    "Hello\nThanks, but where is my parcel?",
    "Hi\nBest, most expensive parcel ever, and lost.",
    "Bedankt,\nmaar waar is mijn pakket?",
    "Hilsen til jer\nMen hvor er pakken?",
    "Hej\nSendt fra min gamle adresse, og pakken kom aldrig",
    "Il corriere ha scritto:\nnon trovato\nMa io ero a casa",
    "Data: 3 czerwca\nDo: Warszawa\nnie doszło",
    "/path is broken\non your site",
    "Hi\n- one is red\n- two is blue",
    "Tak\nJa czekam na przelew od dwóch tygodni, którego nie ma i nie ma od dawna",
]
