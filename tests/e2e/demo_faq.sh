#!/bin/bash
# SPDX-License-Identifier: MIT
# Asks the built-in model questions of docs/faq.md and wants the page's answers, word for word:
# over a socket from llmdevd, each question alone and some as later turns of one conversation.
# usage: tests/e2e/demo_faq.sh    environment: LLMDEV_BUILD (default build)
set -u
O=${LLMDEV_BUILD:-build}
model=tools/demo/model
work=$(mktemp -d)
daemon=
count=0
failed=0

finish() {
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null
		wait "$daemon" 2>/dev/null
	fi
	rm -rf "$work"
}
trap finish EXIT

ok() { # RC WHAT
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		failed=$((failed + 1))
	fi
}

if ! command -v python3 >/dev/null; then
	echo "ok 1 # SKIP python3 is not installed: it reads docs/faq.md"
	exit 0
fi

# Question, tab, answer: every eleventh canonical question, one other phrasing of every fifteenth.
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tools/demo python3 - >"$work/pairs" <<'EOF'
import faq
entries, dialogues = faq.parse("docs/faq.md")
for t in entries[::11] + [t for t in entries if t.questions[0] == "Why is the sky blue?"]:
    print(t.questions[0], t.answer, sep="\t")
for t in entries[5::15]:
    print(t.questions[1], t.answer, sep="\t")
EOF
# A dialogue whose follow-up means nothing without the turn before.
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tools/demo python3 - "$work" <<'EOF'
import sys
import faq
entries, dialogues = faq.parse("docs/faq.md")
for n, d in enumerate(dialogues[:4]):
    turns = [d.first, *d.rest]
    with open(f"{sys.argv[1]}/talk{n}", "w") as f:
        f.write("".join(t.questions[0] + "\n" for t in turns))
    with open(f"{sys.argv[1]}/want{n}", "w") as f:
        f.write("".join(t.answer + "\n" for t in turns))
EOF

"$O/llmdevd" "$model" --socket "$work/sock" 2>"$work/log" &
daemon=$!
for _ in $(seq 200); do
	[ -S "$work/sock" ] && break
	kill -0 "$daemon" 2>/dev/null || break
	sleep 0.05
done
[ -S "$work/sock" ]
rc=$?
ok $rc "llmdevd serves the built-in model"
if [ $rc -ne 0 ]; then
	sed 's/^/# /' "$work/log"
	echo "1..$count"
	exit 1
fi

while IFS=$'\t' read -r question answer; do
	got=$("$O/llmctl" ask --socket "$work/sock" "$question" 2>"$work/err" </dev/null)
	[ "$got" = "$answer" ]
	rc=$?
	ok $rc "$question"
	[ $rc -eq 0 ] || printf '# got:  %s\n# want: %s\n' "$got" "$answer"
done <"$work/pairs"

for want in "$work"/want*; do
	talk=${want/want/talk}
	# Blank lines and prompts between the answers are the tool's business.
	"$O/llmctl" chat --socket "$work/sock" <"$talk" 2>"$work/err" | grep -v '^[> ]*$' >"$work/got"
	cmp -s "$work/got" "$want"
	rc=$?
	ok $rc "a conversation: $(tr '\n' ' ' <"$talk")"
	[ $rc -eq 0 ] || diff "$work/got" "$want" | sed 's/^/# /'
done

echo "1..$count"
[ $failed -eq 0 ]
