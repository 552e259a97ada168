#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Templates of our own and what Python's jinja2 makes of them, for tests/unit/test_template.c.

    python3 tests/oracle/make_template_cases.py           writes tests/fixtures/template/cases.jsonl
    python3 tests/oracle/make_template_cases.py --check   compares with what is there

Needs jinja2 3.1.6 or later. The environment is transformers': an immutable sandbox, trim_blocks,
lstrip_blocks, loop controls, the generation tag, and its tojson, namespace, dict, raise_exception
and strftime_now. One line a case: {"t": template, "o": output} or {"t": template, "e": message};
all are rendered with VARS, and with NOW as the time.
"""
import datetime
import itertools
import json
import os
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = os.path.join(os.path.dirname(__file__), "..", "fixtures", "template", "cases.jsonl")
NOW = datetime.datetime(2024, 7, 26, 12, 34, 56)

VARS = {
    "s": "Hello, World", "u": "naïve 你好 👩‍💻 ß", "e": "", "sp": "  a b\tc \n", "html": "<a href=\"x\">'&'</a>",
    "lines": "one\ntwo\r\nthree\n\nfive\u2028six", "n": 7, "m": -3, "z": 0, "f": 2.5, "big": 1e22, "tiny": 1.5e-7,
    "t": True, "fa": False, "no": None, "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "nest": [[1, 2], [3, [4]]],
    "d": {"a": 1, "b": {"c": [1, 2, {"x": "y"}]}, "items": "shadow", "ü": "k\"ey"},
    "mixed": [1, "a", None, True, 2.0, [], {}], "empty": [], "ed": {},
    "msgs": [{"role": "system", "content": "You are."}, {"role": "user", "content": "Hi\n"},
             {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
             {"role": "tool", "content": "{\"r\": 1}", "name": "f"}, {"role": "user", "content": " bye "}],
    "people": [{"name": "Bo", "age": 30, "city": "x"}, {"name": "al", "age": 25, "city": "Y"},
               {"name": "Cy", "age": 30}, {"name": "di", "age": 41, "city": "y", "deep": {"k": [5]}}],
}


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attrs = dict(*args, **kwargs)
        for name in attrs:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError("underscore")


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, strftime_now=NOW.strftime, namespace=Namespace,
                       dict=lambda *a, **k: dict(*a, **k))
    return env


# ---- expressions: each becomes a template "{{ ... }}" -------------------------------------------------

EXPRESSIONS = """
1 + 2 * 3 ** 2
2 ** 3 ** 2
-2 ** 2
(-2) ** 2
2 ** -1
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
7 / 2
6 / 2
1 / 3
1e3
1E-5
1_000 + 0x_ff + 0b101 + 0o17
0.1 + 0.2
1.0
100000000000000000.0
1e15
1e16
123456789012345680.0
1e-4
0.00001
1.5e300 * 1e10
-0.0
0.0 == -0.0
3 == 3.0
true == 1
1 < 2 < 3
1 < 3 < 2
3 > 2 >= 2 != 1
'a' < 'b'
[1, 2] < [1, 3]
(1, 'a') == (1, 'a')
[1] == (1,)
{'a': 1} == {'a': 1.0}
1 in [1, 2]
1.0 in [1, 2]
4 not in [1, 2]
'ell' in s
'x' in d
'a' in d
not 'a' in d
none in mixed
(1, 2) in [(1, 2)]
'' or 'x'
0 and 1
[] or {} or none
t and s
not t
not not e
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x']
'a' 'b' "c"
1 if t else 2
1 if fa
(1 if fa) is undefined
'x' if fa else 'y' if fa else 'z'
s[0] ~ s[-1] ~ s[100]
s[1:4]
s[:-3]
s[-3:]
s[::2]
s[::-1]
s[10:2:-2]
s[5:100]
u[0:3]
u[-2:]
u[::-1]
u[2]
u[6:8]
u[::3]
l[0] ~ l[-1]
l[1:]
l[::-1]
l[:0]
l[-100:100]
(1, 2, 3)[1:]
l[5] is undefined
d.a
d['a']
d.b.c[2].x
d.items
d['items']
d.missing
d.missing is defined
d['missing'] is none
d.get('a') ~ d.get('q') ~ d.get('q', 5)
d.keys() | list
d.values() | list | length
d.keys()
ed.items()
d.b.values()
'a' in d.keys()
1 in d.values()
('a', 1) in d.items()
nest.0.1
nest[1][1][0]
msgs[2].tool_calls[0].function.arguments.x
msgs[-1]['content']
s.upper() ~ s.lower() ~ s.title() ~ s.swapcase() ~ s.capitalize()
u.upper()
u.title()
u.capitalize()
'ΑΣ ΣΑΣ'.lower()
'ǆ'.title()
"they're bill's".title()
"they're bill's-x (y"|title
s.split()
s.split(',')
s.split(', ', 1)
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',', maxsplit=1)
'a  b c '.split(' ')
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
' a  b c '.split(maxsplit=1)
''.split()
''.split(',')
lines.splitlines()
lines.splitlines(true)
lines.splitlines(keepends=True)
'a\\r\\nb\\rc\\x0bd'.splitlines()
sp.strip() ~ '|' ~ sp.lstrip() ~ '|' ~ sp.rstrip() ~ '|'
'xxaxx'.strip('x') ~ 'abcab'.lstrip('ab') ~ 'abcab'.rstrip('ab')
'你好a你'.strip('你')
'\\u3000a\\x1f'.strip()
s.startswith('Hell') ~ s.endswith(('x', 'ld')) ~ s.startswith(('q',)) ~ s.startswith('W', 7)
s.startswith('') ~ s.endswith('') ~ ''.startswith('a')
s.find('o') ~ s.rfind('o') ~ s.find('zz') ~ s.find('o', 5) ~ s.find('o', 0, 3) ~ s.find('')
u.find('好') ~ u.rfind('ß') ~ u.index('你')
s.count('l') ~ s.count('') ~ 'aaa'.count('aa') ~ s.count('l', 5)
s.replace('l', 'L') ~ s.replace('l', 'L', 1) ~ s.replace('', '-') ~ s.replace('', '-', 3)
'abc'.removeprefix('ab') ~ 'abc'.removesuffix('bc') ~ 'abc'.removeprefix('x')
'a-b'.partition('-') ~ 'a-b'.rpartition('-') ~ 'ab'.partition('-') ~ 'ab'.rpartition('-')
'ab'.center(7, '*') ~ 'ab'.center(6) ~ 'abc'.center(6, '-') ~ 'abc'.center(7,'-') ~ 'ab'.ljust(4, '.') ~ 'ab'.rjust(4) ~ '|'
'-42'.zfill(6) ~ '42'.zfill(1) ~ '+1'.zfill(4) ~ ''.zfill(2)
'a\\tb\\t'.expandtabs() ~ 'a\\tb'.expandtabs(4) ~ '|'
', '.join(['a', 'b']) ~ '-'.join('xyz') ~ ''.join([]) ~ '+'.join(d)
'abc'.isalpha() ~ 'ab1'.isalnum() ~ '12'.isdigit() ~ ''.isdigit() ~ ' '.isspace() ~ 'AB'.isupper() ~ 'ab'.islower()
'Ab Cd'.istitle() ~ '1²'.isdigit() ~ '½'.isnumeric() ~ '٣'.isdecimal() ~ 'é'.isalpha() ~ 'a_1'.isidentifier() ~ '1a'.isidentifier() ~ 'aé'.isascii()
'a\\n'.isprintable() ~ 'é'.isprintable() ~ '\\u200b'.isprintable()
'ß'.casefold() ~ 'STRASSE'.lower() ~ 'ß'.upper() ~ 'ﬁ'.upper()
'{} {}'.format(1, 'a') ~ '{1}{0}'.format('a', 'b') ~ '{x}{y.a}'.format(x=1, y=d) ~ '{0[0]}{1[a]}'.format(l, d)
'{:>5}|{:<5}|{:^5}|{:*^7}|{:05d}|{:+d}|{:,}|{:_}'.format('a', 'b', 'c', 'd', 42, 5, 1234567, 1234567)
'{:.2f}|{:8.3f}|{:e}|{:g}|{:%}|{:.3}|{:10.4}|'.format(3.14159, 2.5, 12345.678, 0.0001, 0.25, 'abcdef', 1.0)
'{:x}|{:X}|{:#x}|{:b}|{:o}|{:#b}|{:c}'.format(255, 255, 255, 5, 8, 5, 65)
'{!r}|{!s}|{{}}|{:{}}'.format('a', 'b', 'c', 4)
'{}'.format(none) ~ '{}'.format([1, 'a']) ~ '{:d}'.format(true) ~ '{}'.format(true) ~ '{:5}|'.format(true)
'{:.0f} {:.0f} {:.1f} {}'.format(0.5, 1.5, 0.25, 1e100)
'{:<05}|{:05}|{: d}'.format('a', 3.5, 4)
'%s %d %i %5.2f %x %X %o %e %g %r %%' % ('a', 3, 4.7, 3.14159, 255, 255, 8, 1.5, 0.0001, 'q')
'%(a)s-%(b)s' % {'a': 1, 'b': [1]}
'%5s|%-5s|%05d|%+d|% d|%#x|%.2s|%5.1s|' % ('a', 'b', 42, 5, 5, 255, 'xyz', 'xyz')
'%s' % 5 ~ '%s' % none ~ '%s' % [1, 2] ~ '%s' % (('a', 1),) ~ '%c%c' % ('a', 66)
'%*d|%-*d|%.*f' % (5, 42, 5, 42, 2, 3.14159)
'%.3d|%05.1f|%s' % (5, 2.25, true)
'%s' % u ~ '%r' % u ~ '%a' % u
'abc' * 3 ~ 'x' * 0 ~ 'x' * -1 ~ 2 * 'ab'
[1] * 3
(1,) * 2 + (2,)
[1] + [2]
s|upper ~ s|lower ~ s|capitalize ~ s|title ~ s|length ~ s|trim ~ s|reverse
'foo bar_baz-qux(x)[y]{z}<w>'|title
l|sort ~ l|sort(reverse=true) ~ ls|sort ~ ls|sort(case_sensitive=true) ~ ls|sort(true, true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|join(' ')
people|sort(attribute='name', reverse=true)|map(attribute='name')|list
people|map(attribute='city', default='?')|list
people|map(attribute='deep.k.0', default=0)|list
people|map('length')|list
ls|map('upper')|list
ls|map('replace', 'a', 'z')|join
['1','2']|map('int')|sum
people|selectattr('city')|list|length
people|selectattr('city', 'defined')|map(attribute='name')|list
people|rejectattr('city', 'defined')|map(attribute='name')|list
people|selectattr('age', '>', 28)|map(attribute='name')|list
people|selectattr('age', 'equalto', 30)|list|count
people|selectattr('name', 'in', ['al', 'di'])|map(attribute='age')|list
range(10)|select('odd')|list ~ range(10)|reject('divisibleby', 3)|list
mixed|select|list ~ mixed|reject|list
mixed|select('string')|list ~ mixed|select('none')|list ~ mixed|select('number')|list
people|groupby('age')
people|groupby('city', default='none')|map(attribute='grouper')|list
people|groupby('age')|map(attribute='list')|map('length')|list
people|groupby('city', default='Q', case_sensitive=true)|map('first')|list
ls|unique|list ~ ['a','A','b']|unique|list ~ ['a','A']|unique(true)|list ~ [1,1.0,true]|unique|list
people|unique(attribute='age')|map(attribute='name')|list
l|min ~ l|max ~ ls|min ~ ls|max ~ ls|max(true) ~ people|max(attribute='age')
empty|min is undefined
empty|first is undefined
(empty|last) ~ '|'
l|first ~ l|last ~ s|first ~ s|last ~ d|first ~ (1,2)|last
l|sum ~ [[1],[2]]|sum(start=[]) ~ people|sum('age') ~ people|sum(attribute='age', start=100) ~ [1, 2.5]|sum
l|join(', ') ~ l|join ~ people|join('-', attribute='name') ~ mixed|join('/') ~ 'abc'|join('.')
l|reverse|list ~ 'abc'|reverse ~ range(3)|reverse|list ~ d|reverse|list
l|length ~ d|length ~ d|count ~ range(5)|length
[1,2,3,4,5]|batch(2)|list ~ [1,2,3,4,5]|batch(2, 'x')|list
[1,2,3,4,5]|slice(2)|list ~ [1,2,3,4,5,6,7]|slice(3, 'x')|list
'abc'|list ~ d|list ~ range(3)|list ~ (1,2)|list
d.b|dictsort ~ {'b':1,'A':2,'c':0}|dictsort ~ {'b':1,'A':2}|dictsort(true) ~ {'b':1,'A':2}|dictsort(false,'value') ~ {'b':1,'a':2}|dictsort(reverse=true)
d.b|items|list
no_such|items|list ~ no_such|list ~ no_such|join ~ no_such|upper ~ no_such|length ~ no_such|sum ~ no_such|sort ~ no_such|trim
no_such|default('x') ~ none|default('x') ~ none|default('x', true) ~ ''|d('y', boolean=true) ~ no_such|d
no_such ~ '|' ~ d.nope ~ '|'
no_such is defined
no_such == nope
no_such in [1]
1 in no_such
no_such or 'x'
no_such is none
no_such is string
no_such is iterable
no_such is sequence
[no_such, nope]
'%s|' % no_such
s|replace('l', 'L') ~ s|replace('l', 'L', 1) ~ 5|replace('5', 6) ~ s|replace('', '.')
s|truncate(8) ~ '|' ~ s|truncate(5, leeway=0) ~ '|' ~ s|truncate(5, true, leeway=0) ~ '|' ~ s|truncate(9, false, '!', 0) ~ '|' ~ s|truncate(6, end='', leeway=0)
u|truncate(6, true, '', 0)
s|center(20) ~ '|' ~ s|center(3) ~ '|' ~ 5|center(4) ~ '|' ~ ('ab'|center(5)) ~ '|'
lines|indent ~ '|' ~ lines|indent(2, true) ~ '|' ~ lines|indent('> ', blank=true) ~ '|' ~ ''|indent ~ '|' ~ ''|indent(first=true) ~ '|'
'a\\n'|indent ~ '|' ~ '\\na'|indent(first=true) ~ '|'
'the quick brown fox jumps'|wordwrap(10)
'the quick brown-fox jumps over'|wordwrap(12)
'averyveryverylongword and more'|wordwrap(8)
'averyveryverylongword and more'|wordwrap(8, false)
'a b\\n\\nc   d e'|wordwrap(3, wrapstring='/')
'well-known facts about self-contained units'|wordwrap(10, break_on_hyphens=false)
'  leading and   inner   spaces  '|wordwrap(9)
s|wordcount ~ 'a b-c d_e 你好 x'|wordcount ~ ''|wordcount
'42'|int ~ '42.9'|int ~ 'x'|int ~ 'x'|int(5) ~ '0x1f'|int(base=16) ~ '101'|int(0, 2) ~ 3.9|int ~ true|int ~ none|int ~ ' 7 '|int ~ '-1_0'|int ~ [1]|int(9) ~ '1e3'|int
'2.5'|float ~ 'x'|float ~ 'x'|float(1.5) ~ '1e3'|float ~ 3|float ~ none|float ~ ' 1_0.5 '|float ~ 'inf'|float ~ 'nan'|float
2.5|round ~ 3.5|round ~ 2.675|round(2) ~ 42.55|round(1, 'floor') ~ 42.51|round(1, 'ceil') ~ 7|round ~ 1234|round(-2) ~ 1250|round(-2) ~ -2.5|round ~ 1234.5|round(-2)
-5|abs ~ (-5)|abs ~ (-2.5)|abs ~ true|abs
5|string ~ none|string ~ [1]|string
d|tojson
d.b|tojson(indent=2)
mixed|tojson(indent=1)
mixed|tojson
u|tojson
u|tojson(ensure_ascii=true)
d|tojson(sort_keys=true)
d.b|tojson(separators=(',', ':'))
{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(indent=4, sort_keys=true)
[big, tiny, f, 1.0, -0.0]|tojson
{1: 2, true: 3, none: 4, 1.5: 5}|tojson
'a\\u2028\\x7f\\x01\\t"\\\\/'|tojson
'a\\x7f'|tojson(ensure_ascii=true)
html|tojson
[[], {}, [[]]]|tojson(indent=2)
(1, 2)|tojson
[1]|tojson(indent='--')
[1, 2]|tojson(indent=0)
html|e ~ html|escape|escape ~ html|forceescape|forceescape ~ html|safe ~ html|safe|e
html|striptags ~ '<!-- x --> a  b &amp; &lt;c&gt; &#65;'|striptags ~ 'a < b'|striptags
('<'|e) + '<' ~ '|' ~ ('<'|safe) + '<'
('<'|e) is escaped ~ '<' is escaped
['<'|safe]
'a b/c?d=é&'|urlencode ~ {'a b': 'c/d', 'e': 1}|urlencode ~ [('x', 'y z')]|urlencode ~ 5|urlencode
{'class': 'a b', 'id': none, 'x': '<', 'y': nope}|xmlattr ~ '|' ~ {'a': 1}|xmlattr(false) ~ '|' ~ {}|xmlattr
'%s and %s'|format('a', 1) ~ '%(x)s'|format(x=2) ~ 'none'|format
0|filesizeformat ~ 1|filesizeformat ~ 999|filesizeformat ~ 1000|filesizeformat ~ 1500000|filesizeformat ~ 1024|filesizeformat(true) ~ 1e30|filesizeformat
[{'b': 1, 'a': 2}]|pprint ~ 'x'|pprint
{'aaaaaaaaaaaaaaaaaaaaaaaaaaaa': [1111111111111, 2222222222222222], 'bbbbbbbbbbbbbbbbbbbbb': {'x': 1, 'y': [3]}}|pprint
d|attr('a') is undefined
d|attr('keys') is callable
s|attr('upper') is callable
1 is odd ~ 2 is even ~ 9 is divisibleby 3 ~ 9 is divisibleby(2) ~ 1 is number ~ 1 is integer ~ 1.0 is float ~ true is boolean ~ true is integer ~ true is number
'a' is string ~ [] is iterable ~ [] is sequence ~ {} is mapping ~ {} is sequence ~ 5 is iterable ~ none is none ~ 'a' is lower ~ 'A' is upper ~ 'A1' is upper ~ '1' is upper
1 is eq 1 ~ 1 is ne 1 ~ 1 is lt 2 ~ 2 is ge(2) ~ 1 is gt 0 ~ 1 is le 1 ~ 1 is equalto 1 ~ 'a' is in 'abc' ~ 1 is in [1]
1 is sameas 1 ~ true is sameas true ~ 1 is sameas true ~ none is sameas none ~ 1 is not odd ~ not 1 is odd ~ 1 is true ~ true is true ~ false is false
'upper' is filter ~ 'nope' is filter ~ 'odd' is test ~ range is callable ~ 5 is callable ~ s.upper is callable ~ s is not callable
range(5) ~ range(1, 5) ~ range(5, 1, -2) ~ range(0)|list ~ range(5, 0, -2)|list ~ range(10)[2:5] ~ range(10)[-1] ~ 3 in range(5) ~ 5 in range(5) ~ 4 in range(0, 10, 3)
range(3) == range(0, 3, 1) ~ range(10)[::2]|list
dict(a=1, b='x') ~ dict([('a', 1)]) ~ dict({'a': 1}, b=2)
namespace(a=1).a ~ namespace({'b': 2}).b ~ namespace(a=1)
{'a': 1, 2: 'b', none: [], (1,): {}}
{'a': 1, 'a': 2}
{1: 'a', 1.0: 'b', true: 'c'}
{'a': {'b': 1}}.a.b
['it\\'s', "q\\"q", "b'\\"", 'n\\n\\t\\\\', '\\x00\\x7f\\xa0é\\u200b😀', '']
[1.0, 1e16, 1e-5, none, true, (), (1,), (1, 2)]
'\\a\\b\\f\\v\\0\\x41\\u00e9\\U0001F600\\101\\q'|tojson
'line1\\
line2'
strftime_now('%Y-%m-%d') ~ strftime_now('%d %b %Y') ~ strftime_now('%B %d, %Y, %A %H:%M:%S %p %j %y %%')
(5).bit_length() ~ (2.0).is_integer()
l.index(1) ~ l.count(3) ~ (1, 2, 2).count(2) ~ l.copy() ~ d.b.copy()
cycler('a', 'b').next()
lines.split('\\n')
s.split('o')[0].strip()
' '.join(s.split()[::-1])
(s ~ u)|length
u|upper ~ u|length ~ u|reverse|length
(1, 2, 3) | tojson
[] is defined and {} is mapping
1 if 'a' in d and d.a == 1 else 0
msgs|map(attribute='role')|join(',')
msgs|selectattr('role', 'equalto', 'user')|list|last
msgs|selectattr('role', 'ne', 'user')|map(attribute='role')|list
(msgs|selectattr('role', 'eq', 'user')|first).content
msgs[1:][0].role
msgs[0].content.split(' ')[-1].rstrip('.')
'x' in ('x', 'y')
"a" in "" or "" in ""
5 in (5,)
none == false
1 == true
'1' == 1
[] == []
1 != 1.5
(1 ,) < (1, 2)
2 <= 2.0 <= 2
9007199254740993 == 9007199254740992.0
9223372036854775807
-9223372036854775807 - 1
true + true
true ~ -true ~ +true
1.5 // 0.5 ~ 1e308 * 10 ~ -1e308 * 10
'é' < 'z' ~ 'z' < 'é' ~ '你' > 'é' ~ '😀' > '\\uffff'
"\\u00e9" == "é"
d.b.c|last|items|list
d['b']['c'][2]['x'].upper()
s.upper().lower().title()|replace('W', 'V')|length + 1
(l|length) * 2 - 1
l|length * 2
-l|length
'a' ~ 'b' * 2 ~ 'c' + 'd'
1 + 2 ~ 3 + 4
not 1 == 2
1 < 2 and 2 < 3 or false
(none or {}).get('x', 'd')
(d.get('nope') or []) | length
[x]|length
{'x': no_such}
{}.x is undefined
(1, 2)[0] ~ (1,)|length ~ ()|length
[1,2,][0] ~ (1,2,)|length ~ {'a':1,}|length ~ range(1,)|length
"{% raw %}"
'}}' ~ '%}' ~ '#}'
{'a': {'b': {}}}
loop is defined
caller is defined
""" .strip("\n")

# ---- expressions that must fail, in both ---------------------------------------------------------------

FAILING = """
1 / 0
1 // 0
1 % 0
1.0 % 0
'a' + 1
1 + 'a'
[1] + (1,)
none + 1
'a' < 1
none < 1
[] > 1
-'a'
d < d
'a' * 'b'
'a' - 'b'
no_such.x
no_such['x']
no_such()
no_such + 1
no_such < 1
-no_such
d.nope.x
d.a.x.y
l[9].x
none.x.y
s()
5()
d.a()
l.append(4)
d.update({'a': 2})
d.pop('a')
d.setdefault('q', 1)
d.clear()
l.pop()
l.sort()
l.reverse()
l.extend([1])
s.nope()
s.__class__.x
s.split('')
s.index('zz')
l.index(99)
s.startswith(1)
s.join([1])
'a'.center(5, 'xx')
1 in 5
1 in 'abc'
'abc'[::0]
s['a':]
range(1, 2, 0)
range(1000000)
range('a')
range()
5|length
none|length
5|list
5|join
none|list
5|sort
[1, 'a']|sort
[none, 1]|sort
5|first
5|tojson|first|length|first
no_such|tojson
range(3)|tojson
d.keys()|tojson
{(1,): 2}|tojson
[s.upper]|tojson
(l|map('upper'))|tojson
no_such|int
no_such|abs
no_such|indent
5|indent
no_such|dictsort
l|dictsort
5|items|list
d|dictsort(by='x')
'x'|round
1|round(1, 'x')
'x'|abs
l|map|list
l|map('nope')|list
l|select('nope')|list
people|selectattr|list
people|groupby
s|nope
s is nope
s|upper(1)
s|replace('a')
s|trim(1)
s|default(1, 2, 3)
s|default(x=1)
s.upper(1)
s.split(x=1)
s.strip(chars='a')
d.get()
d.get('a', 1, 2)
d.get(key='a')
'%d' % 'a'
'%s %s' % 'a'
'%s' % (1, 2)
'%z' % 1
'%(a)s' % [1]
'%(a)s' % {}
'%x' % 1.5
'%'  % 1
'{}'.format()
'{x}'.format(1)
'{'.format(1)
'}'.format(1)
'{:d}'.format('a')
'{:d}'.format(1.5)
'{:s}'.format(1)
'{:5}'.format(none)
'{0}{}'.format(1, 2)
'{:.2}'.format(1)
raise_exception('no')
raise_exception()
{[1]: 2}
{{}: 1}
[[1]]|unique|list
('a', 'b')|sum
['a']|sum
[1]|sum(start='a')
(1, 2).append(3)
namespace(1)
namespace([1])
dict(1)
cycler()
joiner(1, 2)
9223372036854775807 + 1
2 ** 64
9999999999999999999
s|truncate(1)
s|wordwrap(0)
{'a b': 1}|xmlattr
l|batch
l|slice(0)|list
1 2
1 +
(1
[1
{'a'
{'a': }
s.
s|
s is
is
1 if
a b
'abc
"abc
1 ! 2
a = 1
foo(1, a=2, 3)
foo(a=1, a=2)
foo(**d, 1)
foo(*l, 1)
@
1 is odd is even
{% x %}
s..x
[1 2]
1 not 2
not
""".strip("\n")

# ---- whole templates -------------------------------------------------------------------------------------

TEMPLATES = [
    # white space
    "a\n{% if t %}\nb\n{% endif %}\nc\n",
    "a\n  {% if t %}\n  b\n  {% endif %}\n  c\n\n",
    "a\n  {%- if t -%}\n  b\n  {%- endif -%}\n  c",
    "a\n  {%+ if t +%}\n  b\n  {%+ endif +%}\n  c",
    "a {% if t %} b {% endif %} c",
    "  {% if t %}x{% endif %}  ",
    "\n\n{% if t %}\n\nx\n\n{% endif %}\n\n",
    "x {{- s -}} y", "x {{ s }}\n", "x {{ s }}\n\n", "{{ s }}\r\n", "a\r\nb\rc\n\r\n", "{{ s -}}\n\n  y", "  {{- s }}",
    "{{+ s }}", "a {#- c -#} b", "a\n  {# c #}\n  b", "a\n  {# c +#}\n  b", "a {# x #} b", "{#\nmulti\nline\n#}\nx",
    "{# {{ no }} {% no %} #}x", "a\n {#- x #} \n b", "{% set x = 1 %}\n\n{{ x }}", "{% set x = 1 +%}\nx",
    "{% raw %}{{ x }} {% if %}{# #}{% endraw %}", "{% raw -%}  {{ x }}  {%- endraw %} y", "a\n  {% raw %}\n b\n  {% endraw %}\n c",
    "{%- raw -%} x {%- endraw -%} \n y", "{% raw %}\n\n{% endraw %}\nz", "a\n\t{% if t %}\n\tb\n\t{% endif %}",
    "a\u2003\n \u2003{% if t %}x{% endif %}", "a\u00a0{%- if t %}x{%- endif %}\u00a0 b", "{{ 1 }}{% if t %}\n{% endif %}\n{{ 2 }}",
    "{% for x in l %}\n  {{ x }}\n{% endfor %}\nend", "{%- for x in l %}\n  {{- x }}\n{%- endfor %}\nend", "x{% if t %}   \ny{% endif %}",
    "  {{ s }}\n  {% if t %}  {% endif %}  {{ s }}", "{%if t%}x{%endif%}", "{{s}}{{ s}}{{s }}", "{% if t %}\r\nx\r\n{% endif %}\r\ny",
    "{% if t -%}\n\n\n x{% endif %}", "line\n{%- if t %} x {% endif -%}\nline", "{ { } } {a} %} }} #}", "{", "{{ '{' }}", "{{ '{{' }}",
    "a{{ '\n' }}b", "{{ 'a\r\nb'|length }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ {} }}", "{{ {'a':{}} }}x", "{{ [[1]] }}{{ ((1)) }}",
    "{% set x = {'a': [1, {'b': (2, 3)}]} %}{{ x.a[1].b[1] }}", "", "\n", "\n\n", "  ", "{{ s }}  \n", "{# #}", "{# #}\n", "{# #}\n\n",
    "{%- set a = 1 -%}\n{%- set b = 2 -%}\n{{ a }}{{ b }}", "{% if t: %}x{% endif %}", "\ufeff{{ s }}",
    # if
    "{% if fa %}a{% elif n == 7 %}b{% else %}c{% endif %}", "{% if fa %}a{% elif no %}b{% elif e %}c{% else %}d{% endif %}",
    "{% if t %}{% if fa %}x{% else %}y{% endif %}{% endif %}", "{% if no_such %}x{% else %}y{% endif %}", "{% if not t or s %}x{% endif %}",
    "{% if t, fa %}x{% endif %}", "{% if fa %}{{ 1/0 }}{% endif %}ok", "{% if fa %}{{ s|nope }}{% endif %}ok", "{% if t %}{{ s|nope }}{% endif %}ok",
    "{{ s|nope if fa else 'y' if t }}",
    # for
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for x in empty %}x{% else %}none{% endfor %}", "{% for x in l %}x{% else %}none{% endfor %}", "{% for x in no_such %}x{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for c in u %}[{{ c }}]{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }};{% endfor %}", "{% for k, v in d|items %}{{ k }};{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for x in l if x > 10 %}x{% else %}none{% endfor %}", "{% for (a, b) in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }};{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in l %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for x in [[1, [2, [3]]], [4]] recursive %}{{ loop.depth }}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "{% for m in msgs recursive %}{{ m.role }}{% endfor %}", "{% set x = 0 %}{% for y in l %}{% set x = y %}{{ x }}{% endfor %}{{ x }}",
    "{% for y in l %}{{ x }}{% set x = y %}{{ x }};{% endfor %}", "{% set ns = namespace(x=0) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}",
    "{% for x in range(3) %}{{ x }}{% endfor %}{{ x }}", "{% set x = 9 %}{% for x in range(3) %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in l|map('string') %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for x in l|reverse %}{{ loop.revindex }}{{ x }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for x in [1,2,3,4] if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ x }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for x in [1,2,3,4] if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ x }}{{ loop.last }}{% endfor %}",
    "{% for x in l %}{{ loop }}{% endfor %}", "{% for x in l %}{% if loop.first %}{% set y = 1 %}{% endif %}{{ y }}{% endfor %}",
    "{% set g = l|map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}", "{% for x in l, ls %}{{ x }}{% endfor %}",
    "{% for x in l if loop is defined %}{{ x }}{% endfor %}", "{% for x in l %}{% else %}{% endfor %}x", "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %};{% endfor %}",
    "{% for x in l if x != 1 else %}{% endfor %}", "{% for x in (l if t else ls) %}{{ x }}{% endfor %}", "{% for i in range(l|length) %}{{ l[i] }}{% endfor %}",
    "{% for m in msgs %}{% if m.role == 'user' and loop.last %}{{ m.content|trim }}{% elif m.tool_calls is defined %}{{ m.tool_calls[0].function|tojson }}{% endif %}{% endfor %}",
    "{% for m in msgs[::-1] %}{{ m.role[0] }}{% endfor %}", "{% for m in msgs %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}",
    # set
    "{% set x = 1 %}{{ x }}{% set x = x + 1 %}{{ x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = 'xy' %}{{ a }}{{ b }}", "{% set (a, b) = [1, 2] %}{{ a + b }}",
    "{% set x = 1, 2 %}{{ x }}", "{% set x = 1, %}{{ x }}", "{% set x %}a{{ s }}b{% endset %}{{ x|length }}{{ x }}", "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | upper | replace('B', '-') %}abc{% endset %}{{ x }}", "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y }}", "{% if t %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% if fa %}{% set x = 1 %}{% endif %}{{ x }}", "{% if fa %}{% set s = 1 %}{% endif %}{{ s }}", "{% set s = 1 %}{{ s }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{% set ns.a = ns.a + [2] %}{{ ns.a }}", "{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns.a is defined }}{{ ns.b is defined }}",
    "{% set ns = namespace(x=1) %}{% macro m() %}{% set ns.x = 5 %}{% endmacro %}{{ m() }}{{ ns.x }}", "{% set ns = namespace(t='') %}{% for m in msgs %}{% set ns.t = ns.t ~ m.role[0] %}{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(a=1) %}{% set ns.a, b = 3, 4 %}{{ ns.a }}{{ b }}", "{% set ns.a = 1 %}", "{% set d.a = 1 %}", "{% set d['a'] = 1 %}", "{% set 1 = 2 %}", "{% set true = 2 %}",
    "{% set a, b = 1 %}", "{% set a, b = [1] %}", "{% set a, b = [1, 2, 3] %}", "{% set ns = namespace(_a=1) %}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{% set a.b.c = 1 %}",
    "{% set x %}a", "{% set x = %}", "{% set %}", "{% set x %}{{ no_such.y }}{% endset %}",
    # macros
    "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=1, a=5) }}{{ m() }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ s }}{% endcall %}", "{% macro m() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}",
    "{% macro m(x) %}{{ x }}{{ y }}{% endmacro %}{% set y = 5 %}{{ m(1) }}", "{% set y = 1 %}{% macro m() %}{{ y }}{% endmacro %}{{ m() }}{% set y = 2 %}{{ m() }}",
    "{% macro m() %}{% set y = 3 %}{{ y }}{% endmacro %}{{ m() }}{{ y }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro m() %}\n  x\n{% endmacro %}\n{{ m() }}", "{% macro m() -%}\n  x\n{%- endmacro %}\n{{ m()|upper }}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m(a, a) %}{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m() %}{{ caller }}{% endmacro %}{{ m() }}", "{% macro m() %}{% if caller %}y{% else %}n{% endif %}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
    "{% macro m(a, b=1) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}{{ m }}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro outer() %}{% macro inner(x) %}<{{ x }}>{% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer() }}", "{% macro m(x) %}{{ x|upper }}{% endmacro %}{{ l|map('string')|list }}{{ [m('a'), m('b')]|join('-') }}",
    "{% macro m() %}{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}{% endmacro %}{{ m() }}", "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% macro m() %}{{ m2() }}{% endmacro %}{% macro m2() %}z{% endmacro %}{{ m() }}",
    "{% macro m(x) %}{{ x.y }}{% endmacro %}{{ m() }}", "{% macro m(x) %}{{ x }}{% endmacro %}[{{ m() }}]", "{{ m(1) if m is defined else 'nm' }}{% macro m(a) %}{% endmacro %}", "{% macro m(t) %}{{ t }}{% endmacro %}{{ m(*[1]) }}{{ m(**{'t': 2}) }}",
    "{% macro r(x) %}{% if x is mapping %}{{ '{' }}{% for k, v in x|items %}{{ k }}:{{ r(v) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% elif x is string %}'{{ x }}'{% elif x is iterable %}[{% for v in x %}{{ r(v) }},{% endfor %}]{% else %}{{ x }}{% endif %}{% endmacro %}{{ r(d) }}",
    "{% call foo() %}x{% endcall %}", "{% call 5 %}{% endcall %}", "{% call(x) m() %}{% endcall %}", "{% macro m(caller) %}{% endmacro %}", "{% macro m(caller=none) %}{{ caller }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ loop }}{% endmacro %}{% for x in l %}{{ m() }}{% endfor %}", "{% macro 5() %}{% endmacro %}", "{% macro m %}{% endmacro %}",
    # blocks of other kinds
    "{% filter upper %}abc{{ s }}{% endfilter %}", "{% filter upper|replace('B', 'x') %}abc{% endfilter %}", "{% filter indent(2) %}a\nb{% endfilter %}", "{% filter nope %}{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set x = 1 %}{{ x }}{% endwith %}{{ x }}", "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}", "{% with a, b = (1, 2) %}{% endwith %}",
    "{% generation %}x{{ s }}{% endgeneration %}y", "{%- generation -%}\n x {%- endgeneration %} y", "{% generation %}{% set x = 1 %}{% endgeneration %}{{ x }}", "{% block b %}x{{ s }}{% endblock %}", "{% block b %}{% endblock b %}y",
    "{% print s, 1 %}", "{% print s %}", "{% autoescape false %}{{ html }}{% endautoescape %}", "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}",
    "{% for x in l %}{% filter upper %}{{ x }}a{% endfilter %}{% endfor %}", "{% for x in l %}{% set y %}{{ x }}{% endset %}{{ y * 2 }}{% endfor %}",
    # errors
    "{% if %}{% endif %}", "{% if t %}", "{% endif %}", "{% for %}{% endfor %}", "{% for x in %}{% endfor %}", "{% for x l %}{% endfor %}", "{% for x in l %}", "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for a, b in l %}{% endfor %}", "{% for loop in l %}{% endfor %}",
    "{% break %}", "{% continue %}", "{% if t %}{% break %}{% endif %}", "{% nope %}", "{% do l %}", "{{ s", "{% if t", "{# x", "{% raw %}x", "{{ }}", "{%%}", "{% %}", "{{ s }} {% endfor %}", "{% if t %}{% endfor %}", "{% for x in l %}{% endif %}", "{% else %}", "{% include 'x' %}",
    "{% import 'x' as y %}", "{% extends 'x' %}", "{{ raise_exception('my message') }}", "{% if t %}{{ raise_exception('bad: ' ~ s) }}{% endif %}", "{{ lipsum(1)|length|string|length * 0 }}x" if False else "{{ 1 }}", "{{ '\\x4' }}", "{{ '\\u12' }}", "{{ (1, 2 }}", "{{ [1, 2) }}", "{{ 1) }}", "{{ }} }}", "{{ s}} }}",
    "{{ s }", "{% if t %}x{% endif", "{{ 1 }}}", "{{{ 1 }}", "{{ {1: 2}}}", "{{ 'a' if }}", "{% set x = 1 %}{% set x.y = 2 %}", "{% for x in l recursive %}{{ loop(5) }}{% endfor %}", "{% for x in l %}{{ loop([1]) }}{% endfor %}", "{% for x in l %}{{ loop.nope.x }}{% endfor %}", "{% for x in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in l if x.y.z %}{% endfor %}", "{% set x = l.append(5) %}", "{% set _ = d.update({'x': 1}) %}", "{{ d.append }}|{{ l.append }}|", "{{ l.append is defined }}", "{{ l.append is callable }}", "{{ s.__class__ }}|", "{{ s.__nope__ }}|", "{{ d.__class__ }}|", "{{ d._x }}|",
]

# A prompt as chat templates write it.
TEMPLATES += ["""{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if msgs[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + msgs[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=msgs|length - 1) %}
{%- for message in msgs[::-1] %}
    {%- set index = (msgs|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in msgs %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}
                {{- '\\n' }}
            {%- endif %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (msgs[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- content }}
        {%- if loop.last or (msgs[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt is not defined or add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""]


def products():
    """Small things put together in every way."""
    values = ["1", "-2", "2.5", "'a'", "'ab'", "''", "true", "none", "[1, 'a']", "[]", "(1,)", "{'a': 1}", "nope", "range(3)"]
    for a, b in itertools.product(values, values):
        yield "{{ [%s] }}" % ", ".join(f"({a}) {op} ({b})" for op in ("==", "!="))
    for op in ("+", "-", "*", "/", "//", "%", "<", "<=", "in", "~", "and", "or"):
        for a, b in itertools.product(values, values):
            yield "{{ (%s) %s (%s) }}" % (a, op, b)
    filters = ["abs", "capitalize", "center(5)", "count", "d('z')", "dictsort", "e", "first", "float", "format", "indent",
               "int", "items|list", "join('-')", "last", "length", "list", "lower", "max", "min", "pprint", "replace('a', 'b')",
               "reverse|list", "round", "safe", "select|list", "slice(2)|list", "sort", "string", "striptags", "sum", "title",
               "tojson", "trim", "truncate(3, leeway=0)", "unique|list", "upper", "urlencode", "wordcount", "wordwrap(3)", "xmlattr",
               "batch(2)|list", "map('string')|list", "attr('x')", "items|list", "filesizeformat", "forceescape", "reject|list"]
    for v, f in itertools.product(values + ["5", "'  x y  '", "'1'", "[3, 1, 2]", "['b', 'A']", "[[1], [2]]", "{'b': 1, 'A': 2}"], filters):
        yield "{{ (%s)|%s }}" % (v, f)
    tests = ["boolean", "callable", "defined", "divisibleby 2", "escaped", "even", "false", "float", "integer", "iterable", "lower",
             "mapping", "none", "number", "odd", "sequence", "string", "true", "undefined", "upper", "in 'abc'", "in [1, 'a']", "eq 1",
             "sameas none", "gt 1"]
    for v, f in itertools.product(values, tests):
        yield "{{ (%s) is %s }}" % (v, f)
    subscripts = ["0", "-1", "5", "'a'", "none", "1.0", "true", ":", "1:", ":-1", "::-1", "::2", "-1:0:-1", "5:", ":5", "nope", "'upper'", "[]"]
    for v, k in itertools.product(values + ["'日本語x'", "[1, 2, 3]"], subscripts):
        # a slice of a literal that has none is undefined only because jinja2 folds constants
        if ":" not in k or v not in ("1", "-2", "2.5", "true", "none", "{'a': 1}"):
            yield "{{ (%s)[%s] }}" % (v, k)
    for a, b, c, d in itertools.product(["", "-", "+"], ["", "-", "+"], ["", " ", "\n", " \n "], ["", "\n", "  \n  x"]):
        yield "a%s{%%%s if t %s%%}%sb%s{%%%s endif %s%%}%sc" % (c, a, b, d, c, b, a, d)
        yield "a%s{#%s c %s#}%sb" % (c, a, b, d)
        if b != "+":
            yield "a%s{{%s s %s}}%sb" % (c, a, b, d)
        if b != "+":
            yield "a%s{%%%s raw %s%%}%sb%s{%%%s endraw %s%%}%sc" % (c, a, b, d, c, b, a, d)


def skipped(template):
    """What no implementation but CPython's can give: addresses of objects, big integers."""
    return any(x in template for x in ("lipsum",))


def render(env, template):
    try:
        out = env.from_string(template).render(json.loads(json.dumps(VARS)))
    except Exception as e:  # whatever Python raises
        return {"t": template, "e": str(e)[:200]}
    return {"t": template, "o": out}


def cases():
    env = environment()
    seen = set()
    expressions = EXPRESSIONS.replace("\\\nline2", "\\\x00line2").split("\n")
    for t in itertools.chain(
            ("{{ %s }}" % x.replace("\x00", "\n") for x in expressions), ("{{ %s }}" % x for x in FAILING.split("\n")),
            TEMPLATES, products()):
        if t in seen or skipped(t):
            continue
        seen.add(t)
        c = render(env, t)
        if " at 0x" not in c.get("o", ""):
            yield c

# fine in Python, whose integers have no end
BIG = ("9223372036854775807 + 1", "2 ** 64", "9999999999999999999")


def main():
    lines = [json.dumps({"vars": VARS}, ensure_ascii=True)]
    for c in cases():
        if c["t"][3:-3] in BIG:
            c = {"t": c["t"], "e": "integer does not fit 64 bits"}
        lines.append(json.dumps(c, ensure_ascii=True))
    text = "\n".join(lines) + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if open(OUT).read() == text else "cases.jsonl differs from what jinja2 %s gives" % jinja2.__version__)
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as f:
        f.write(text)
    print(len(lines) - 1, "cases")


if __name__ == "__main__":
    main()
