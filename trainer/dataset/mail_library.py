"""Phrases of mails in thirteen languages, as mail-parser-reply knows them (MIT).

The library alone is no rule to cut messages by: it takes any line that begins with "Thanks," for
the end of the message, "On Monday my landlord wrote:" for a quotation, no line that begins with
">" for one, and two seconds for four thousand blank lines, eight for twice as many. Its phrases are
worth having, and the rules of ``mails`` are put on top of them. The only file that imports
``mailparser_reply``.
"""

from __future__ import annotations

import re
from importlib.metadata import version

from trainer.dataset.mails import MACHINE, Phrases
from trainer.errors import BadInput

# Its introductions of es, ko and zh match nothing (each begins by forbidding itself), and that of
# nl wants the name before "schreef:". Their headers, closing words and devices are sound.
LANGUAGES = ("cs", "da", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "sv", "zh")
_PACKAGE = "mail-parser-reply"
_FLAGS = re.IGNORECASE
_DEVICES = rf"(?:{MACHINE}|ios)"


def load_phrases() -> tuple[Phrases, str]:
    """Return the library's phrases, and its name with its version. Raises BadInput where it is not
    installed, or no longer knows one of ``LANGUAGES``."""
    try:
        from mailparser_reply.constants import MAIL_LANGUAGES
    except ImportError as error:
        raise BadInput(
            f"--mail-phrases library needs the package {_PACKAGE}: install filing-clerk[mail]"
        ) from error
    if missing := [name for name in LANGUAGES if name not in MAIL_LANGUAGES]:
        raise BadInput(f"{_PACKAGE} {version(_PACKAGE)} does not know {', '.join(missing)}")
    known = [MAIL_LANGUAGES[name] for name in LANGUAGES]
    closing = "|".join(
        phrase.rstrip(",.")
        for language in known
        for phrase in language["signatures"]
        if not phrase.startswith("/")  # "/Ann" is a signature in Swedish, and a path everywhere
    )
    devices = "|".join(_device(phrase) for one in known if (phrase := one["sent_from"]))
    return Phrases(
        introductions=tuple(re.compile(one["wrote_header"], _FLAGS) for one in known),
        headers=tuple(re.compile(one["from_header"], _FLAGS) for one in known),
        closing=re.compile(f"(?:{closing}) ?[,.!]?", _FLAGS),
        device=re.compile(devices, _FLAGS),
    ), f"{_PACKAGE} {version(_PACKAGE)}"


def _device(phrases: str) -> str:
    """Return phrases like "Sent from my" followed, or filled, by a machine that writes them itself,
    not by whatever the customer goes on to say."""
    return "|".join(
        phrase.replace(".*", f" ?{_DEVICES} ?") if ".*" in phrase else f"{phrase} {_DEVICES}"
        for phrase in phrases.split("|")
    )
