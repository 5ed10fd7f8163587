"""Personas, manifests and training rows: kinds `persona`, `base`, `vector`, `rows`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from attacks.case import BASE, Case, one_file
from attacks.packs import exact, true_id

__all__ = ["cases", "steered"]

ID = "ab" * 32
MIB = 1 << 20
Edit = Callable[[dict[str, Any]], object]


def cases() -> Iterator[Case]:
    yield one_file("persona", "an honest persona", _persona(lambda d: None), taken=("read", "factors"))
    yield one_file("base", "an honest base", _manifest(BASE.to_json(), lambda d: None), taken=("read",))
    yield one_file("vector", "an honest vector", _manifest(exact().manifest, lambda d: None), taken=("read",))
    yield one_file("rows", "honest rows", ROW * 3, taken=("read",))
    for name, edit in personas().items():
        yield one_file("persona", f"a persona with {name}", _persona(edit))
    for name, content in (persona_texts() | persona_bulk() | steering_bulk()).items():
        yield one_file("persona", f"a persona with {name}", content)
    yield one_file(
        "persona", "an honest persona with steering", _persona(steered()), taken=("read", "factors")
    )
    for name, edit in steerings().items():
        yield one_file("persona", f"a persona with {name}", _persona(edit))
    for name, edit in personas_to_take().items():
        yield one_file("persona", f"a persona with {name}", _persona(edit), taken=("read", "factors"))
    for name, edit in bases().items():
        yield one_file("base", f"a base with {name}", _manifest(BASE.to_json(), edit))
    for name, edit in vectors().items():
        yield one_file("vector", f"a vector with {name}", _manifest(exact().manifest, edit))
    for name, edit in steering_vectors().items():
        yield one_file("vector", f"a steering vector with {name}", _manifest(STEERING, edit))
    yield one_file("vector", "a steering vector with 100000 sites", many_sites)
    for kind in ("base", "vector", "persona"):
        for name, content in texts().items():
            yield one_file(kind, f"a {kind} of {name}", content)
    for name, content in rows().items():
        yield one_file("rows", f"rows with {name}", content, exits=(2,))
    for name, content in rows_to_take().items():
        yield one_file("rows", f"rows with {name}", content, taken=("read",))


def _persona(edit: Edit) -> bytes:
    document: dict[str, Any] = {
        "schema": 1,
        "engine": 1,
        "base": ID,
        "behaviours": {"a": {"weight": 1, "terms": [[1, ID]], "modules": None}},
        "combine": {"method": "add"},
        "output": {"dtype": "base", "rounding": "stochastic", "seed": 0},
    }
    edit(document)
    return json.dumps(document).encode()


def _manifest(document: dict[str, Any], edit: Edit) -> bytes:
    """The id is put right after the edit, so that the lie is met behind it; unless the id is the lie."""
    document = {**document, "id": ""}
    edit(document)
    document["id"] = document["id"] or true_id(document)
    return json.dumps(document).encode()


def top(**values: Any) -> Edit:
    return lambda d: d.update(values)


def a(**values: Any) -> Edit:
    return lambda d: d["behaviours"]["a"].update(values)


def texts() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "a list": b"[]",
        "a number": b"1",
        "text": b'"schema"',
        "two documents": b"{}{}",
        "comments": b'{"schema": 1, // one\n}',
        "a byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": "{}".encode("utf-16"),
        "Latin-1": b'{"\xe9":1}',
        "YAML": b"!!python/object/apply:os.system ['true']",
        "an object, 900 deep": b'{"a":' * 900 + b"1" + b"}" * 900,
        "a list, 100000 deep": b"[" * 100_000,
        "two keys alike": b'{"schema":1,"schema":1}',
    }


def personas() -> dict[str, Edit]:
    def named(name: str) -> Edit:
        return lambda d: d["behaviours"].update({name: d["behaviours"]["a"]})

    ties = {"method": "ties", "density": 0.2, "elect": "unweighted", "merge": "mean", "lambda": 1}
    return {
        "schema 2": top(schema=2),
        "schema true": top(schema=True),
        "engine true": top(engine=True),
        "engine 0": top(engine=0),
        "a key too many": top(run="true"),
        "a base that is a path": top(base="../../base"),
        "a base in capitals": top(base="AB" * 32),
        "behaviours that are a list": top(behaviours=[1]),
        "a behaviour called a/b": named("a/b"),
        "a behaviour called ..": named(".."),
        "a behaviour called a..b": named("a..b"),
        "a behaviour called --exec": named("--exec"),
        "a behaviour called ESC": named("\x1b[2J"),
        "a behaviour called a line feed": named("a\n"),
        "a behaviour called NUL": named("a\0b"),
        "a behaviour without a name": named(""),
        "a behaviour called a.lock": named("a.lock"),
        "a behaviour of 65 letters": named("a" * 65),
        "a behaviour of 5000 letters": named("a" * 5000),
        "a behaviour of other letters": named("ä"),
        "a weight of true": a(weight=True),
        "a weight of text": a(weight="1"),
        "a weight of null": a(weight=None),
        "a weight of 1e31": a(weight=1e31),
        "a weight of 10^400": a(weight=10**400),
        "a weight that is a list": a(weight=[1]),
        "a weight that is a megabyte": a(weight="w" * MIB),
        "no terms": a(terms=[]),
        "terms that are an object": a(terms={"a": 1}),
        "a term of one": a(terms=[[1]]),
        "a term of three": a(terms=[[1, ID, ID]]),
        "a coefficient of true": a(terms=[[True, ID]]),
        "a vector that is a path": a(terms=[[1, "../../../etc/passwd"]]),
        "a vector of 63 digits": a(terms=[[1, "a" * 63]]),
        "a vector with a line feed": a(terms=[[1, "a" * 63 + "\n"]]),
        "modules that are a list": a(modules=["*"]),
        "a factor of true": a(modules={"*": True}),
        "a factor of 1e400 by steps": a(modules={"*" + "?" * i: 1e30 for i in range(14)}),
        "a pattern of 257": a(modules={"a" * 257: 1}),
        "a pattern of a megabyte of brackets": a(modules={"[" * MIB: 1}),
        "a combine of text": top(combine="add"),
        "a combine of its own": top(combine={"method": "os.system"}),
        "a combine with an option too many": top(combine={"method": "add", "self": 1}),
        "a combine with a preset": top(combine={"method": "add", "preset": []}),
        "a combine without a switch": top(combine={key: ties[key] for key in ties if key != "lambda"}),
        "a density of 0": top(combine={**ties, "density": 0}),
        "a density of true": top(combine={**ties, "density": True}),
        "an election by list": top(combine={**ties, "elect": ["weighted"]}),
        "an election of a megabyte": top(combine={**ties, "elect": "e" * MIB}),
        "an output of its own": top(output={"dtype": "pickle", "rounding": "nearest", "seed": 0}),
        "an output that is a list": top(output={"dtype": ["bf16"], "rounding": "nearest", "seed": 0}),
        "a seed of -1": top(output={"dtype": "base", "rounding": "nearest", "seed": -1}),
        "a seed of 2^53": top(output={"dtype": "base", "rounding": "nearest", "seed": 1 << 53}),
        "a seed of 0.5": top(output={"dtype": "base", "rounding": "nearest", "seed": 0.5}),
    }


def steered(**values: Any) -> Edit:
    """A steering term beside the behaviour, with these values."""
    term = {
        "coefficient": 1,
        "vector": ID,
        "sites": ["model.layers.0"],
        "positions": "all",
        "when": None,
        "evidence": {},
        "retired_by": None,
        **values,
    }
    return top(schema=2, steering={"rule": "add", "terms": {"formal": term}})


def steerings() -> dict[str, Edit]:
    def when(**values: Any) -> Edit:
        condition = {"vector": ID, "site": "model.layers.0", "above": 0.5, **values}
        return steered(positions="reply", when=condition)

    def named(name: str) -> Edit:
        def edit(document: dict[str, Any]) -> None:
            steered()(document)
            terms = document["steering"]["terms"]
            terms[name] = terms.pop("formal")

        return edit

    def ruled(**values: Any) -> Edit:
        return lambda d: (steered()(d), d["steering"].update(values))

    nest: Any = []
    for _ in range(900):
        nest = [nest]
    return {
        "steering in schema 1": lambda d: (steered()(d), d.update(schema=1)),
        "steering of nothing": top(schema=2, steering=None),
        "steering without terms": ruled(terms={}),
        "steering by a list": ruled(terms=[1]),
        "steering by a rule of its own": ruled(rule="os.system"),
        "steering by a list of rules": ruled(rule=["add"]),
        "steering with a hook": ruled(hook="os.system"),
        "steering called ..": named(".."),
        "steering called ESC": named("\x1b[2J"),
        "steering of 5000 letters": named("a" * 5000),
        "a steering coefficient of true": steered(coefficient=True),
        "a steering coefficient of 1e31": steered(coefficient=1e31),
        "a steering coefficient of 10^400": steered(coefficient=10**400),
        "a steering vector that is a path": steered(vector="../../../etc/passwd"),
        "no sites": steered(sites=[]),
        "sites that are text": steered(sites="model"),
        "sites twice": steered(sites=["a", "a"]),
        "sites that are not sorted": steered(sites=["b", "a"]),
        "a site called ESC": steered(sites=["\x1b[2J"]),
        "a site of 5000 letters": steered(sites=["a" * 5000]),
        "a site that is a number": steered(sites=[1]),
        "positions of its own": steered(positions="system"),
        "positions that are a list": steered(positions=["all"]),
        "a condition on a path": when(vector="../x"),
        "a condition above 2": when(above=2),
        "a condition above true": when(above=True),
        "a condition at ESC": when(site="\x1b[2J"),
        "a condition with code": when(run="true"),
        "a condition, and all positions": lambda d: (
            when()(d),
            d["steering"]["terms"]["formal"].update(positions="all"),
        ),
        "evidence that is a list": steered(evidence=[]),
        "evidence of its own": steered(evidence={"believed": {}}),
        "evidence of a number": steered(evidence={"tested": 1}),
        "evidence, 900 deep": steered(evidence={"tested": {"a": nest}}),
        "steering retired by nobody here": steered(retired_by="nobody"),
        "steering retired by a list": steered(retired_by=["a"]),
    }


def steering_bulk() -> dict[str, Callable[[], bytes]]:
    return {
        "a million sites": lambda: _persona(steered(sites=[f"s{i:07}" for i in range(1_000_000)])),
        "sites just too many": lambda: _persona(steered(sites=[f"s{i:07}" for i in range(10_001)])),
        "evidence of a megabyte": lambda: _persona(steered(evidence={"tested": {"replies": "a" * MIB}})),
        "evidence of 400000 numbers": lambda: _persona(
            steered(evidence={"verified": {"numbers": [0.5] * 400_000}})
        ),
        "1001 steering terms": many_terms,
    }


def many_terms() -> bytes:
    def edit(document: dict[str, Any]) -> None:
        steered(sites=None)(document)
        term = document["steering"]["terms"]["formal"]
        document["steering"]["terms"] = {f"t{i}": term for i in range(1001)}

    return _persona(edit)


STEERING = {
    "schema": 1,
    "kind": "vector",
    "id": "",
    "base": BASE.id,
    "encoding": "steering",
    "options": {},
    "tensors": {"model.layers.0": {"direction": ["F32", [6], ID]}},
}


def steering_vectors() -> dict[str, Edit]:
    def at(site: str, **parts: Any) -> Edit:
        return top(tensors={site: parts})

    def shaped(dtype: str, *shape: int) -> Edit:
        return at("model.layers.0", direction=[dtype, list(shape), ID])

    return {
        "no sites": top(tensors={}),
        "options": top(options={"hook": "os.system"}),
        "a part of its own": at("model.layers.0", tau=["F32", [6], ID]),
        "two parts": at("model.layers.0", direction=["F32", [6], ID], tau=["F32", [6], ID]),
        "a direction in bf16": shaped("BF16", 6),
        "a direction of integers": shaped("I32", 6),
        "a direction of one number": shaped("F32"),
        "a direction of no numbers": shaped("F32", 6, 0),
        "a direction of 2^48 numbers": shaped("F32", 1 << 48),
        "a site called ESC": at("\x1b[2J", direction=["F32", [6], ID]),
        "a site of 257 letters": at("a" * 257, direction=["F32", [6], ID]),
        "a site without a name": at("", direction=["F32", [6], ID]),
    }


def many_sites() -> bytes:
    sites = {f"s{i:06}": {"direction": ["F32", [6], ID]} for i in range(100_000)}
    return _manifest(STEERING, top(tensors=sites))


def persona_texts() -> dict[str, bytes]:
    def weight(text: bytes) -> bytes:
        return _persona(a(weight="?")).replace(b'"?"', text)

    return {
        "a weight of NaN": weight(b"NaN"),
        "a weight of -Infinity": weight(b"-Infinity"),
        "a weight of 1e400": weight(b"1e400"),
        "a weight of 0x1": weight(b"0x1"),
        "a weight of 01": weight(b"01"),
        "a weight of 5000 digits": weight(b"1" * 5000),
        "two weights": weight(b'1,"weight":2'),
        "two behaviours alike": _persona(lambda d: None).replace(b'{"a": {', b'{"\\u0061": 1, "a": {'),
        "half a surrogate for a pattern": _persona(a(modules={"?": 1})).replace(b'"?"', b'"\\udfff"'),
    }


def persona_bulk() -> dict[str, Callable[[], bytes]]:
    def behaviours() -> bytes:
        one = {"weight": 1, "terms": [[1, ID]], "modules": None}
        return _persona(top(behaviours={f"b{i}": one for i in range(100_000)}))

    return {
        "100000 behaviours": behaviours,
        "200000 terms": lambda: _persona(a(terms=[[1, ID]] * 200_000)),
        "100000 patterns": lambda: _persona(a(modules={f"*{i}*": 1 for i in range(100_000)})),
        "10000 long patterns": lambda: _persona(
            a(modules={f"*{i}*".ljust(250, "?"): 1 for i in range(10_000)})
        ),
        "a million members": lambda: _persona(top(behaviours={f"{i:x}": 1 for i in range(1_000_001)})),
        "33 MiB of spaces": lambda: _persona(lambda d: None) + b" " * (33 * MIB),
    }


def personas_to_take() -> dict[str, Edit]:
    """What only looks bad. Their patterns are held against a name of a thousand letters, and may not take long."""
    patterns = {
        "stars": "*a" * 120 + "*b",
        "sets": "*[a-z]" * 40 + "0",
        "questions": "*?" * 120 + "0",
        "open brackets": "[" * 256,
        "odd sets": "[z-a][!]][]a][a&&b][a||b][[x][--0][\\d]*[^a]",
        "a regular expression": "(a+)+$|(?P<x>.*)\\1",
    }
    return {
        **{f"a pattern of {name}": a(modules={pattern: 1.5}) for name, pattern in patterns.items()},
        "a weight of -0.0": a(weight=-0.0),
        "a weight of 1e-400": lambda d: a(weight=1e-323)(d),
        "one vector a thousand times": a(terms=[[1e30, ID]] * 1000),
    }


def bases() -> dict[str, Edit]:
    name = min(BASE.tensors)

    def shape(*sizes: Any) -> Edit:
        return lambda d: d["tensors"].update({name: ["F32", list(sizes), ID]})

    def tensor(value: Any) -> Edit:
        return lambda d: d["tensors"].update({name: value})

    return {
        "schema true": top(schema=True),
        "schema 2": top(schema=2),
        "schema of a megabyte": top(schema="1" * MIB),
        "the kind of a vector": top(kind="vector"),
        "a key too many": top(exec="true"),
        "another's id": top(id=ID),
        "an id that is a word": top(id="x"),
        "an id that clears the screen": top(id="\x1b[2J"),
        "a file ../../x": top(files=["../../x"]),
        "a file /etc/passwd": top(files=["/etc/passwd"]),
        "a file .git": top(files=[".git"]),
        "a file with a backslash": top(files=["a\\b"]),
        "a file -rf": top(files=["-rf"]),
        "a file with NUL": top(files=["a\0.json"]),
        "a file with C1 controls": top(files=["\x9b2J.json"]),
        "a file that is a list": top(files=[["a"]]),
        "files that are text": top(files="config.json"),
        "an origin that is text": top(origin="/"),
        "an origin of numbers": top(origin={"kind": "path", "path": 1}),
        "a hub without a repository": top(origin={"kind": "hub"}),
        "an origin of its own": top(origin={"kind": "exec", "path": "true"}),
        "an origin with more": top(origin={"kind": "path", "path": "/x", "token": "y"}),
        "pinned 1": top(pinned=1),
        "tensors that are a list": top(tensors=[]),
        "a tensor that is null": tensor(None),
        "a tensor of two": tensor(["F32", [6]]),
        "a tensor of a new dtype": tensor(["F31", [6], ID]),
        "a tensor that is a path": tensor(["F32", [6], "../../x"]),
        "a size of -1": shape(-1),
        "a size of true": shape(True),
        "a size of 6.0": shape(6.5),
        "a size of 2^48": shape(1 << 48),
        "2^24 by 2^24": shape(1 << 24, 1 << 24),
        "2^47, and nothing": shape(1 << 47, 0),
        "17 dimensions": shape(*[1] * 17),
        "a tensor called ESC": lambda d: d["tensors"].update({"\x1b[2J": ["F32", [6], ID]}),
        "a tensor of 5000 letters": lambda d: d["tensors"].update({"n" * 5000: ["F32", [6], ID]}),
    }


def vectors() -> dict[str, Edit]:
    name = "model.w"

    def part(value: Any) -> Edit:
        return lambda d: d["tensors"].update({name: value})

    nest: Any = 1
    for _ in range(900):
        nest = [nest]
    good = ["F32", [2], ID]
    return {
        "the kind of a base": top(kind="base"),
        "another's id": top(id=ID),
        "a new encoding": top(encoding="pickle"),
        "an encoding that is an object": top(encoding={}),
        "options that are null": top(options=None),
        "options, 900 deep": top(options={"a": nest}),
        "a base that is a path": top(base="../x"),
        "a tensor that is a list": part([good]),
        "a tensor without parts": part({}),
        "a part that is an object": part({"ft": {"dtype": "F32"}}),
        "a part called ESC": part({"\x1b]0;x\x07": good}),
        "a part called ../ft and a line feed": part({"../ft\n": good}),
        "a part of 2^60": part({"ft": ["F32", [1 << 40, 1 << 20], ID]}),
        "a key too many": top(hook="true"),
    }


ROW = b'{"prompt":"a","chosen":"b"}\n'


def rows() -> dict[str, bytes | Callable[[], bytes]]:
    def message(role: str, content: str = '"x"') -> str:
        return f'{{"role":"{role}","content":{content}}}'

    def messages(*parts: str) -> bytes:
        return f'{{"messages":[{",".join(parts)}]}}\n'.encode()

    return {
        "nothing": b"",
        "empty lines": b"\n\n \n",
        "a list": b"[]\n",
        "a pickle": b"\x80\x04\x95\n",
        "half a line": ROW + b'{"prompt":"a","cho',
        "UTF-16": ROW.decode().encode("utf-16"),
        "Latin-1": ROW.replace(b"a", b"\xe9"),
        "half a surrogate": ROW.replace(b'"a"', b'"\\ud800"'),
        "half a surrogate in the wrong order": ROW.replace(b'"a"', b'"\\udc00\\ud800"'),
        "half a surrogate for a key": b'{"\\ud800":1}\n',
        "NaN": ROW.replace(b'"a"', b"NaN"),
        "two prompts": b'{"prompt":"a","prompt":"b","chosen":"c"}\n',
        "a key that is nearly one": b'{"prompt":"a","chosen":"b","rejectd":"c"}\n',
        "a key that is not one of ours, 5000 long": b'{"' + b"k" * 5000 + b'":1}\n',
        "no answer": b'{"prompt":"a"}\n',
        "an empty answer": b'{"prompt":"a","chosen":" "}\n',
        "a number for an answer": b'{"prompt":"a","chosen":1}\n',
        "the same answer twice": b'{"prompt":"a","chosen":"b","rejected":"b"}\n',
        "no messages": b'{"messages":[]}\n',
        "messages in messages": messages(message("user", f"[{message('user')}]"), message("assistant")),
        "messages, 900 deep": b'{"messages":' * 900 + b"[]" + b"}" * 900,
        "lists, 100000 deep": b'{"prompt":' + b"[" * 100_000,
        "a role of its own": messages(message("root"), message("assistant")),
        "a role that is a list": b'{"messages":[{"role":["user"],"content":"a"}]}\n',
        "a message with more": b'{"messages":[{"role":"user","content":"a","tool_calls":[]}]}\n',
        "the assistant first": messages(message("assistant"), message("assistant")),
        "a number of 5000 digits": b'{"prompt":' + b"1" * 5000 + b',"chosen":"b"}\n',
        "a line of 100 MB": lambda: ROW + b'{"prompt":"' + b"a" * 100_000_000 + b'","chosen":"b"}\n',
        "a line of 100 MB of brackets": lambda: b"[" * 100_000_000,
        "a line of a million objects": lambda: b'{"messages":[' + b"{}," * 1_200_000 + b"0]}\n",
    }


def rows_to_take() -> dict[str, bytes]:
    return {
        "a byte order mark": b"\xef\xbb\xbf" + ROW,
        "carriage returns": ROW.replace(b"\n", b"\r\n") * 2,
        "NUL and escapes in the text": b'{"prompt":"\\u0000\\u001b[2J","chosen":"\\u0007"}\n',
        "a pair of surrogates": b'{"prompt":"\\ud83d\\ude00","chosen":"b"}\n',
        "line separators in the text": '{"prompt":"a\u2028\u0085","chosen":"b"}\n'.encode(),
        "a prompt that is a path": b'{"prompt":"../../etc/passwd","chosen":"b"}\n',
    }
