# SPDX-License-Identifier: MIT
"""Reads docs/faq.md, which is both documentation and the built-in model's training set.

An entry is a `### Question`, an optional `*Also asked: a; b; c*` line and one answer paragraph.
Under `## Follow-up questions`, a `### After: QUESTION` heading (QUESTION is an entry's, word for
word) starts a dialogue; each `**Follow-up question** *(or: a; b)*` line and the paragraph below it
is the next turn. Everything before the first `##` heading is for readers only.
"""

from dataclasses import dataclass, field

FOLLOW_UPS = "Follow-up questions"


@dataclass
class Turn:
    questions: list  # the first is the canonical one
    answer: str


@dataclass
class Dialogue:
    first: Turn
    rest: list = field(default_factory=list)


def _split(text):
    return [part.strip() for part in text.split(";") if part.strip()]


def _fail(path, number, what):
    raise SystemExit(f"{path}:{number}: {what}")


def parse(path):
    """Returns (entries, dialogues)."""
    entries, dialogues, by_question = [], [], {}
    section = None
    turn = None  # the turn that the next lines belong to
    also = None  # an unfinished "*Also asked:" line

    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if also is not None:
                also += " " + line
            elif line.startswith("## "):
                section, turn = line[3:], None
            elif section is None:
                continue
            elif line.startswith("### After: "):
                first = by_question.get(line[11:])
                if not first:
                    _fail(path, number, f'no entry is called "{line[11:]}"')
                dialogues.append(Dialogue(first))
                turn = None
            elif line.startswith("### "):
                if line[4:] in by_question:
                    _fail(path, number, f'a second entry "{line[4:]}"')
                turn = Turn([line[4:]], "")
                entries.append(turn)
                by_question[line[4:]] = turn
            elif line.startswith("*Also asked:"):
                also = line
            elif line.startswith("**") and section == FOLLOW_UPS:
                question, _, rest = line[2:].partition("**")
                turn = Turn([question], "")
                dialogues[-1].rest.append(turn)
                if rest.strip():
                    also = rest.strip()
            elif line:
                if turn is None:
                    if section != FOLLOW_UPS and not by_question:
                        _fail(path, number, "text that belongs to no question")
                    continue
                turn.answer = (turn.answer + " " + line).strip()
            if also is not None and also.endswith("*"):
                turn.questions += _split(also.strip("*()").partition(":")[2])
                also = None

    for turn in entries + [t for d in dialogues for t in d.rest]:
        if not turn.answer:
            _fail(path, 0, f'"{turn.questions[0]}" has no answer')
    seen = {}
    for turn in entries:
        for question in turn.questions:
            if seen.setdefault(question.lower().rstrip("?.!"), turn) is not turn:
                _fail(path, 0, f'"{question}" stands under two entries')
    return entries, dialogues
