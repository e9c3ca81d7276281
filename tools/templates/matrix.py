"""Writes the golden file of the chat templates' tests: expressions, and what jinja2 renders for them under transformers.

    python matrix.py > ../../clawdbot-core/tests/golden/template_matrix.json

Install transformers and jinja2 3.1.6 or later first. `cases` maps each template to one result for each of `operands`, which
replaces the `@` of the template: an index of `texts`, or `-` for an error. `argument_cases` does so for `argument_operands`,
whose `@` are arguments, elements and parts of blocks. `singles` maps a template to its text, or null for an error. A text that contains a memory address counts as an error, because no test may depend on it.
"""

import copy
import json
import re

from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = {
    "messages": [{"role": "user", "content": "Hello <b>"}, {"role": "assistant", "content": "a b"}],
    "n": None,
    "s": "The quick-brown fox",
    "d": {"b": 1, "a": "x", "items": [1]},
    "l": [3, 1, 2],
    "people": [{"n": "b", "a": 2}, {"n": "A", "a": 1}, {"n": "a", "a": 2}],
    "tree": {"a": [{"b": 1}, {"b": None}]},
}

# Names that are not variables are undefined.
OPERANDS = [
    "u", "none", "true", "false", "0", "1", "-7", "2.5", "1e16", "''", "'aB c'", "'12'", "' 1.5 '", "'é\\n\\'x'", "[]",
    "[3, 1, 2]", "['b', 'A', 'a']", "[1, 'a']", "[[1, 2], [0]]", "[none, u]", "()", "(1, 'a')", "{}", "{'b': 1, 'a': 'x'}",
    "d", "people", "range(3)", "d.keys()", "d.items()", "l|map('string')", "'<&>'|e",
]

FILTERS = """
abs | attr('a') | batch(2)|list | batch(2, 'x')|list | capitalize | center(9) | count | d('x') | default('x', true)
dictsort | dictsort(by='value') | dictsort(reverse=true) | escape | filesizeformat | filesizeformat(true) | first | float
float(7) | forceescape | format(1) | groupby('n') | groupby(0) | indent | indent(2, true, true) | int | int(7) | int(0, 16)
items|list | join | join('-') | join(',', 'n') | join(1) | last | length | list | lower | map('upper')|list
map(attribute='n')|list | map(attribute='x', default=1)|list | map('nothing')|list | max | min | max(attribute='a')
min(attribute='n', case_sensitive=true) | reject|list | reject('none')|list | rejectattr('a')|list
rejectattr('n', 'equalto', 'b')|list | replace('a', 'b') | replace('', '-') | replace(1, 2) | reverse|list | round
round(1) | round(-1) | round(1, 'ceil') | round(0, 'floor') | safe | select|list | select('odd')|list
selectattr('a')|list | selectattr('n', 'equalto', 'b')|list | selectattr('n', 'defined')|list | slice(2)|list
slice(2, 'x')|list | sort | sort(true) | sort(attribute='n') | sort(attribute='a,n') | sort(case_sensitive=true) | string
striptags | sum | sum('a') | sum(start=1.5) | title | tojson | tojson(indent=1) | tojson(sort_keys=true)
tojson(ensure_ascii=true) | trim | trim('a ') | truncate | truncate(5) | truncate(5, true) | truncate(4, leeway=0)
unique|list | unique(true)|list | upper | urlencode | wordcount | wordwrap | wordwrap(3) | wordwrap(2, false, '|') | xmlattr
""".replace("\n", " | ")

TESTS = """
boolean, callable, defined, divisibleby 2, eq 1, equalto 'aB c', escaped, even, false, filter, float, ge 1, gt 1, in [1],
in 'a12', in d, integer, iterable, le 1, lower, lt 1, mapping, ne 1, none, number, odd, sequence, string, test, true, undefined,
upper, sameas none, sameas true
""".replace("\n", " ")

BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", ">=", "in", "not in", "and", "or"]

OTHERS = ["u", "none", "true", "3", "-2", "0.5", "'a'", "'%s|'", "'%d'", "[1]", "[3, 1, 2]", "(1, 'a')", "{'a': 1}", "n"]

POSTFIX = """
[0] [-1] [5] ['a'] ['items'] [none] [u] [1:] [:1] [::-1] [-2:] [::2] [1:99:1] .a .b .items .x .upper .0
.upper() .lower() .strip() .split() .split('b') .rsplit(none,1) .splitlines() .title() .capitalize() .swapcase() .isdigit()
.isalpha() .islower() .isupper() .startswith('a') .endswith(('c','x')) .replace('a','b') .replace('','-',2) .find('B')
.rfind('z') .index('B') .count('a') .join(['x','y']) .join('xy') .zfill(5) .ljust(4,'.') .rjust(4)+'|' .center(7)
.partition('B') .rpartition('B') .removeprefix('a') .removesuffix('c') .format(1) .isspace() .isalnum() .keys()|list
.values()|list .items()|list .get('a') .get('q',1) .get(1) .pop() .append(1) .update({}) .copy() .index(1) .count(1)
.encode() .nothing() ()
""".split()

UNARY = ["-@", "+@", "not @", "@|string ~ [@]", "[@, {'k': @}]", "@ if @ else 'no'", "(@)|list == @"]

STATEMENTS = [
    "{% for x in @ %}{{ x }},{% endfor %}",
    "{% for x, y in @ %}{{ x }}:{{ y }},{% endfor %}",
    "{% set a, b = @ %}{{ a }}:{{ b }}",
    "{% for x in @ %}{{ loop.index }}/{{ loop.last }}{% else %}none{% endfor %}",
    "{% set x = @ %}{{ x }}{{ x }}",
    "{% if @ %}yes{% elif not @ %}no{% endif %}",
    "{% with x = @ %}{{ x }}{% endwith %}",
    "{% macro m(x, y=1) %}{{ x }}{{ y }}{% endmacro %}{{ m(@) }}{{ m(*@) }}",
    "{% set ns = namespace(x=@) %}{% set ns.x = [ns.x] %}{{ ns.x }}",
    "{{ dict(@) }}",
    "{{ '%s' % @ }}",
    "{{ '%s %r' % (@, @) }}",
    "{{ '%5.1f|%-6d|%x' % (@, @, @) }}",
    "{{ '%(a)s' % @ }}",
    "{{ '{} {!r:>8}'.format(@, 'x') }}",
    "{{ '{0:5}|{k}'.format(@, k=1) }}",
    "{{ cycler(@).next() }}",
    "{{ range(@)|list }}",
]

# Operands of ARGUMENTS: what is undefined or none, in the ways in which conversations are, and a value of each other type.
ARGUMENT_OPERANDS = [
    "u", "none", "messages[0].tool_calls", "d['x']", "tools", "false", "0", "2", "''", "'a'", "[]", "['a', u]", "{}", "{'a': none}",
]

ARGUMENTS = """
'aba'|replace(@, 'x'); 'aba'|replace('b', @); 'aba'|replace('b', 'x', @); ['a', 'b']|join(@); people|join('-', @); 'a'|default(@)
u|default(@); none|default('x', @); u|d(@) is defined; people|map(attribute=@)|list; people|map(attribute='x', default=@)|list
people|map(@)|list; people|selectattr(@)|list|length; people|selectattr('a', @)|list|length; people|selectattr('a', 'eq', @)|list|length
people|selectattr('x', 'in', @)|list|length; people|rejectattr('a', 'in', @)|list|length; l|select(@)|list; l|select('eq', @)|list
l|reject('in', @)|list; people|sort(attribute=@)|length; l|sort(@); l|sort(reverse=@); people|groupby(@)|length
people|groupby('x', default=@)|length; people|sum(@); people|sum(attribute='a', start=@); l|batch(@)|list; l|batch(2, @)|list
l|slice(@)|list; l|slice(2, @)|list; d|dictsort(@); d|dictsort(by=@); d|dictsort(reverse=@); 'x\\ny'|indent(@); 'x\\ny'|indent(2, @)
'xax'|trim(@); 'abcabcabcabc'|truncate(@); 'abc def'|truncate(4, @, @, 0); 'abc def'|wordwrap(@); 2.345|round(@); '12'|int(@)
'zz'|int(@); '11'|int(0, @); 'zz'|float(@); '%s'|format(@); 'ab'|center(@); [1, 1]|unique(@)|list; people|unique(attribute=@)|list|length
[2, 1]|min(@); people|max(attribute=@); d|tojson(indent=@); d|tojson(separators=@); d|tojson(sort_keys=@); 'é'|tojson(ensure_ascii=@)
d|attr(@); 'a' is eq @; none is sameas @; 'a' is in @; 4 is divisibleby @; @ is filter; [1, @]; [@]|first; [@]|last; [@, @]|join('-')
[@]|map('string')|list; [@]|map('upper')|list; [@]|map('trim')|list; [@]|map('tojson')|list; [@]|map('length')|list; [@]|select|list
[@]|reject('none')|list; [@]|select('defined')|list; [@]|sum; [@, @]|unique|list; [@, @]|sort; [@, 'b']|sort; [@]|tojson; {'k': @}|tojson
[@]|string; {'k': @}; {'k': @}|items|list; {'k': @}|dictsort; {'k': @, 'j': @}|dictsort(by='value'); {@: 1}; {'k': @}.k; {'k': @}.k.x
{'k': @}['k'] is defined; {'k': @}.get('k'); {'k': @}.get('x', @); d.get(@); d[@]; l[@]; s[@]; l[@:]; l[:@]; l[::@]; s[@:][:4]; s[:@]
s.split(@); s.split(' ', @); s.strip(@); s.lstrip(@); s.startswith(@); s.replace(@, '-'); s.replace('e', @); s.find(@); s.join(@)
'-'.join(['a', @]); s.count(@); s.removeprefix(@); s.zfill(@)|length; l.index(@); l.count(@); '{}'.format(@); '{k}'.format(k=@)
'{:>4}'.format(@); '%s' % @; '%s-%s' % (1, @); '%d' % @; '%(a)s' % @; 'a' + @; @ + 'a'; @ + @; 'a' ~ @; @ ~ @; [1] + @; @ + [1]
@ == u; @ != u; @ == none; none == @; @ == false; '' == @; [] == @; [@] == [u]; [@] == [none]; {'a': @} == {'a': u}; @ < 1; @ < @; 1 > @
@ in [u]; @ in [none]; @ in s; @ in d; @ in l; u in @; none in @; 'a' in @; 'a' not in @; @ and 1; @ or 1; not @; u and @; u or @
'x' if @; 'x' if @ else u; ('x' if @) is defined; (@ if false) is defined; @ is defined and @ is not none; @ is string or @ is iterable
@ is mapping or @ is sequence; range(@)|list; range(0, @)|list; dict(a=@); namespace(a=@).a; namespace(a=@).b is defined; cycler(@, 1).next()
joiner(@)() ~ '|'; raise_exception(@); strftime_now(@); @|default([])|length; (@ or [])|selectattr('a', 'eq', 1)|list; (@ or {}).items()|list
@|default('', true)|trim; (@|default([], true))|map(attribute='a')|join(','); @|length > 0; @|list|length; @|string|length; @[0] is defined
@.a is defined; @.a.b is defined; @['a']['b']; (@.a|default({})).b|default('z'); @|first|default('z'); @|last|default('z'); @|items|list|length
@|tojson|length; @|string is eq 'None'; @|upper|lower; @|trim|length; @|reverse|list|length; @|min; @|attr('x')|default('z')
"""

ARGUMENT_STATEMENTS = [
    "{% for t in @ %}{{ t }},{% else %}none{% endfor %}",
    "{% for t in @ or [] %}{{ t }},{% else %}none{% endfor %}",
    "{% for t in @|default([]) %}{{ t }},{% endfor %}",
    "{% for t in @|default([], true) %}{{ t }},{% endfor %}",
    "{% if @ is defined and @ %}{% for t in @ %}{{ t|tojson }}{% endfor %}{% endif %}end",
    "{% if @ is not none %}{{ '<' ~ @ ~ '>' }}{% else %}null{% endif %}",
    "{% if @|length %}some{% endif %}end",
    "{% for k, v in @.items() %}{{ k }}={{ v }},{% endfor %}",
    "{% for k, v in @|items %}{{ k }}={{ v }},{% endfor %}",
    "{% for k, v in @|dictsort %}{{ k }}={{ v }},{% endfor %}",
    "{% for x in l if x == @ %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l if @ %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [1, @, 2] %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem is defined }}{{ loop.changed(x) }};{% endfor %}",
    "{% for x in [@, @] recursive %}{{ loop(x) if x is sequence and x is not string and x else x }}|{% endfor %}",
    "{% set x = @ %}{{ x is defined }}{{ x is none }}{{ x }}",
    "{% set x, y = [@, 1] %}{{ x is defined }}{{ y }}",
    "{% set ns = namespace(x=none) %}{% set ns.x = @ %}{{ ns.x is defined }}{{ ns.x }}",
    "{% macro m(x, y='d') %}{{ x is defined }}{{ x }}{{ y }}{% endmacro %}{{ m(@) }}{{ m(y=@) }}{{ m(1, @) }}",
    "{% macro m(x=@) %}{{ x is defined }}{{ x }}{% endmacro %}{{ m() }}{{ m(2) }}",
    "{% macro m() %}{{ varargs|length }}{% endmacro %}{{ m(*@) }}",
    "{% macro m() %}{{ kwargs|length }}{% endmacro %}{{ m(**@) }}",
    "{% with x = @ %}{{ x is none }}{{ x }}{% endwith %}",
    "{% filter replace('a', @) %}xay{% endfilter %}",
    "{% set x %}{{ @ }}{% endset %}{{ x|length }}{{ x == '' }}",
    "{%- if tools is not none and tools %}tools{% endif %}{% if not tools %}no{% endif %}{{ @ }}",
]

SINGLE = r"""
{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ [1, (2,)] == [1.0, (2,)] }} {{ {'a': 1} == d }}
{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 7 // 2 * 2 + 7 % 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ 1 / 3 }}
{{ not 1 == 2 }} {{ not not 1 }} {{ 1 if false }} {{ 1 if false else 2 if true else 3 }} {{ 'a' 'b' }} {{ "it's" }} {{ ['it\'s', "a\"b'"] }}
{{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 2.0 }} {{ 10 ** 20 }} {{ '\x41\u00e9\101' }} {{ ['\x00\x7f\xa0\u200b'] }}
{{ ['\ue000\ud7a4\u0301\u3000\U0001f600\U000e0001'] }} {{ (1,) }} {{ 1, 2 }} {{ () }} {{ [1,] }} {{ {'a': 1,} }} {{ {1: 'a', none: 2, (1, 2): 3} }}
{{ people|groupby('a') }} {{ people|groupby('a')|map('first')|list }} {{ people|groupby('a')|map(attribute='list')|map('length')|list }}
{% for k, v in people|groupby('n') %}{{ k }}{{ v|length }}{% endfor %} {% for g in people|groupby('a', default=0) %}{{ g.grouper }}{{ g.list|map(attribute='n')|join }}{% endfor %}
{{ tree.a.0.b }} {{ tree['a'][1].b }} {{ tree.a|map(attribute='b')|list }} {{ people|map(attribute='n')|sort }} {{ people|sort(attribute='a,n')|map(attribute='n')|join }}
{{ s|truncate(12) }} {{ s|truncate(12, true, '..') }} {{ s|truncate(4, false, '', 0) }} {{ s|wordwrap(8) }} {{ s|wordwrap(4) }} {{ s|wordwrap(6, break_on_hyphens=false) }}
{{ 'a--b c-d-e well-known --opt'|wordwrap(6, wrapstring='|') }} {{ 'aaa   bbb\n\nccc  '|wordwrap(5, wrapstring='|') }} {{ 'averyverylong-word'|wordwrap(5, wrapstring='|') }}
{{ 'a\n\nb'|indent }} {{ 'a\n\nb'|indent('>>', true, true) }} {{ 'hello big-world (yes) [no]'|title }} {{ "it's ok"|title }} {{ "it's ok".title() }}
{{ 'ß'|capitalize }} {{ 'ŒUVRE ÀB'|lower }} {{ 'x y'|urlencode }} {{ {'a b': 'c&d', 'e': 1}|urlencode }} {{ 'a/b?c=ü'|urlencode }}
{{ {'class': 'a<b', 'x': none, 'y': u, 'z': 1}|xmlattr }} {{ {'a b': 1}|xmlattr }} {{ 42.55|round }} {{ 2.5|round }} {{ 3.5|round|int }} {{ 1234|round(-2) }} {{ 2.675|round(2) }}
{{ '0x1f'|int(0, 16) }} {{ '1_0'|int }} {{ '12.7'|int }} {{ 'inf'|int(5) }} {{ 'nan'|float }} {{ '1e3'|float }} {{ '٣'|int(-1)|string|length }} {{ ' 7 '|int }} {{ 'z'|int(1, 36) }}
{{ 1000|filesizeformat }} {{ 123456789|filesizeformat }} {{ 1024|filesizeformat(true) }} {{ '5'|filesizeformat }} {{ 'foo bar.baz'|wordcount }} {{ 'a_b c-d é1'|wordcount }}
{{ range(3) }} {{ range(1, 7, 2) }} {{ range(5)[2] }} {{ range(5)|last }} {{ 3 in range(5) }} {{ range(0) == range(1, 1) }} {{ range(100001)|length }}
{{ loop }} {{ namespace(a=1).a }} {% set ns = namespace({'a': 2}, b=3) %}{{ ns.a }}{{ ns.b }} {% set j = joiner('; ') %}{{ j() }}a{{ j() }}b {{ namespace(_a=1) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }} {{ dict(a=1, b=[2]) }} {{ dict([('x', 1)], y=2) }} {{ dict({'a': 1}, a=2) }}
{% set x %}a{{ 1 }}{% endset %}{{ x|upper }} {% set x|upper %}abc{% endset %}{{ x }} {% filter upper|replace('B', '-') %}abc{% endfilter %} {% call(x) m() %}{% endcall %}
{% macro m(a, b='d') %}<{{ a }}{{ b }}{{ caller('c') if caller else '' }}>{% endmacro %}{{ m(1) }}{{ m(b=2) }}{% call(x) m(3) %}{{ x }}{% endcall %}
{% for a in [1, 2, 3, 4] if a is even %}{{ loop.index0 }}{{ a }}{{ loop.revindex }}{{ loop.first }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}
{% for x in [1, [2, [3]]] recursive %}{{ loop.depth }}{{ loop(x) if x is not number else x }}{% endfor %} {% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %} {% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% for x in 'ab' %}{{ x }}.{% endfor %}
{{ 'a' + 1 }} {{ 'a' * 3 }} {{ 3 * [1] }} {{ [1] + [2] }} {{ [1] + (2,) }} {{ (1,) + (2,) }} {{ 'abc'[1:][::-1] }} {{ [1, 2, 3][-2:] }} {{ (1, 2, 3)[1:] }} {{ none[1:] }} {{ 'abc'[5:] }} {{ 'a' < 'B' }} {{ [1] < [1, 2] }} {{ 1 < 'a' }}
{{ '%s' % none }} {{ '%s %s' % ('a',) }} {{ '%s' % ['a'] }} {{ '%d%%' % 5 }} {{ '%05.1f' % 2.25 }} {{ '%+d' % 3 }} {{ '% d' % 3 }} {{ '%-5s|' % 'a' }} {{ '%5s|' % 'é' }} {{ '%.2s' % 'abc' }} {{ '%c%c' % (65, 'b') }} {{ '%e' % 12345 }} {{ '%g %g' % (0.0001, 1e10) }} {{ '%x %X %o %#x' % (255, 255, 8, 255) }} {{ '%i' % 2.9 }} {{ '%d' % 'a' }} {{ 'a' % 1 }} {{ 'a' % {} }} {{ '%*d' % (5, 3) }} {{ '%r' % 'a' }} {{ '%(x)05d' % {'x': 3} }} {{ '%(x)s' % 1 }} {{ '%s' % (1, 2) }} {{ '%s' % ((1, 2),) }} {{ '%' % () }}
{{ 'a{}b{}'.format(1, 'x') }} {{ '{1}{0}'.format(1, 2) }} {{ '{a}'.format(a=1) }} {{ '{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c') }} {{ '{:05.2f} {:,} {:x}'.format(3.14159, 1234567, 255) }} {{ '{{}}'.format() }} {{ '{}'.format() }} {{ '{:d}'.format('a') }} {{ '{}'.format([1.0, none]) }}
{{ '<a>'|e ~ '<b>' }} {{ '<a>'|e|forceescape }} {{ ['<a>'|e] }} {{ '<a>'|safe }} {{ '<a>'|e|length }} {{ '<a>'|e|upper }}
{{ x.y }} {{ x }} {{ none.y }} {{ none.y.z }} {{ none['a'] }} {{ 5 .y }} {{ d.nothing }} {{ d['nothing'].x }} {{ messages[5] }} {{ messages[5].role }} {{ u() }} {{ none() }} {{ n|length }}
{{ d.items }} {{ d['items'] }} {{ d|items|list }} {{ d|attr('b') }} {{ d._x }} {{ s.__class__ }} {{ d.items()|list|length }} {{ d|dictsort(false, 'value') }} {{ d|dictsort(by='nothing') }}
{{ n|selectattr('function')|list }} {{ u|selectattr('a', 'defined')|list }} {{ n|map(attribute='x')|list }} {{ n|unique|list }} {{ n|sort }} {{ n|join }} {{ n|default('x') }} {{ n|default('x', true) }} {{ u|join }} {{ u|sort }} {{ u|first }} {{ u|last }} {{ u|length }} {{ u|upper }} {{ n|upper }} {{ u|int }} {{ n|int }} {{ u|float }} {{ n|tojson }} {{ u|tojson }} {{ u|sum }} {{ u|max }} {{ u == u2 }} {{ u == none }} {{ u in [u2] }} {{ 1 in u }} {{ u in 'a' }} {{ u ~ n }} {{ u is iterable }} {{ u is sequence }} {{ n is iterable }}
{{ [1, 2, 3]|sum }} {{ [[1], [2]]|sum(start=[]) }} {{ ['a']|sum }} {{ ['b', 'A']|min }} {{ []|min }} {{ [1, 'a']|max }} {{ [3, 1]|sort(reverse=true) }} {{ ['b', 'A', 'c']|sort }} {{ [none, 1]|sort }} {{ [1, 1.0, true, '1']|unique|list }} {{ ['a', 'A']|unique|list }} {{ [[1]]|unique|list }}
{{ [0, 1, 2]|select|list }} {{ [1, 2]|select('gt', 1)|list }} {{ [1, 2]|reject('nothing')|list }} {{ []|select('nothing')|list }} {{ [1]|map('nothing')|list }} {{ []|map('nothing')|list }} {{ [1]|map|list }} {{ [[1, 2]]|map('join', '-')|list }} {{ ['a']|map('replace', 'a', 'b')|list }} {{ 1|select|list }} {{ [1]|map(attribute='x')|list }} {{ people|map(attribute='n', default='z')|list }} {{ people|selectattr('a', 'gt', 1)|map(attribute='n')|list }} {{ people|rejectattr('a', 'in', [1])|list|length }}
{{ 'a b'|split }} {{ 'x'|bool }} {{ [1]|zip([2]) }} {{ 'abc'|random(1) }} {{ 'a' is startingwith('a') }} {{ debug() }} {{ 1 is safe }} {{ 'upper' is filter }} {{ 'nothing' is filter }} {{ 'odd' is test }} {{ 5 is odd }} {{ 4 is divisibleby(2) }} {{ 4 is divisibleby 0 }} {{ 'a' is odd }} {{ true is sameas true }} {{ 1 is sameas true }} {{ none is sameas none }} {{ 1.0 is integer }} {{ true is integer }} {{ true is number }} {{ 'A1' is upper }} {{ 'ab' is lower }} {{ 1 is lower }}
{{ d|tojson(indent=2, separators=(',', ': ')) }} {{ [1.0, 1e20, 'é\u2028', none, true]|tojson }} {{ {1: 2, none: 3, true: 4, 2.5: 5}|tojson }} {{ {1: 1, 'a': 2}|tojson(sort_keys=true) }} {{ (1, 2)|tojson }} {{ range(2)|tojson }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ []|tojson(indent=2) }} {{ [[]]|tojson(indent='-') }}
"""


def rendered(template):
    try:
        # `indent` changes a list in place. transformers passes none for what a conversation does not have.
        text = _compile_jinja_template(template).render(tools=None, documents=None, **copy.deepcopy(VARIABLES))
    except Exception:
        return None
    return None if re.search(r"(?i)[ab]t 0x[0-9a-f]+(>|&gt;)|0-x-|>method|bound.*method|built-in|generator|object at", text) else text


def singles():
    """The templates of SINGLE: a line with a tag is one template, otherwise each expression is one."""
    for line in SINGLE.strip().split("\n"):
        if "{%" in line:
            yield line
        else:
            yield from re.findall(r"\{\{.*?\}\}(?= \{\{|$)", line)


def table(templates, operands):
    """The results of each template with each operand: a list of texts, where an error is None."""
    return {template: [rendered(template.replace("@", operand)) for operand in operands] for template in templates}


def main():
    templates = ["{{ (@)|" + part.strip() + " }}" for part in FILTERS.split(" | ") if part.strip()]
    templates += ["{{ (@) is " + part.strip() + " }}" for part in TESTS.split(",") if part.strip()]
    templates += ["{{ (@)" + part + " }}" for part in POSTFIX]
    templates += ["{{ " + part + " }}" for part in UNARY] + STATEMENTS
    for sign in BINARY:
        templates += ["{{ (@) " + sign + " " + other + " }}" for other in OTHERS]
    cases = table(templates, OPERANDS)
    parts = ARGUMENTS.strip().replace("\n", "; ").split("; ")
    arguments = table(["{{ " + part + " }}" for part in parts] + ARGUMENT_STATEMENTS, ARGUMENT_OPERANDS)
    texts = sorted({text for row in [*cases.values(), *arguments.values()] for text in row if text is not None})
    place = {text: at for at, text in enumerate(texts)}

    def rows(cases):
        return {t: " ".join("-" if text is None else str(place[text]) for text in row) for t, row in cases.items()}

    out = {
        "variables": VARIABLES,
        "operands": OPERANDS,
        "argument_operands": ARGUMENT_OPERANDS,
        "texts": texts,
        "cases": rows(cases),
        "argument_cases": rows(arguments),
        "singles": {template: rendered(template) for template in singles()},
    }
    print(json.dumps(out, ensure_ascii=True, indent=0))


main()
