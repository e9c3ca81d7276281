"""The type stubs say what is there."""

import ast
import importlib.metadata
import inspect
import pathlib
import subprocess
import sys

import pytest

import clawdbot
from clawdbot import _clawdbot

PACKAGE = pathlib.Path(clawdbot.__file__).parent
STUB = ast.parse((PACKAGE / "_clawdbot.pyi").read_text())


def public(names):
    return {name for name in names if not name.startswith("_") or name == "__version__"}


def assigned(node):
    return [node.target.id] if isinstance(node, ast.AnnAssign) else []


def test_the_package_exports_everything():
    assert set(clawdbot.__all__) == public(vars(_clawdbot)) | {
        "EmbedOptions",
        "GenerateOptions",
        "LoadOptions",
        "ModelOptions",
        "PackOptions",
        "EvaluateOptions",
        "RerankOptions",
    }
    assert len(clawdbot.__all__) == len(set(clawdbot.__all__))
    assert (PACKAGE / "py.typed").exists()
    assert importlib.metadata.version("clawdbot") == clawdbot.__version__


def test_names_are_the_same():
    stubbed = {node.name for node in STUB.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    stubbed |= {name for node in STUB.body for name in assigned(node)}
    assert public(stubbed) == public(vars(_clawdbot))


def signatures():
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, getattr(_clawdbot, node.name), node
        elif isinstance(node, ast.ClassDef):
            owner = getattr(_clawdbot, node.name)
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                    yield f"{node.name}.{member.name}", vars(owner)[member.name], member


@pytest.mark.parametrize(("name", "found", "stub"), list(signatures()), ids=lambda value: value if isinstance(value, str) else "")
def test_signatures_are_the_same(name, found, stub):
    decorators = [ast.unparse(decorator) for decorator in stub.decorator_list]
    # A static method of its own has Python's.
    documented = inspect.getdoc(getattr(found, "__func__", found))
    assert documented, f"{name} has no docstring"
    # Of overloads, one has it.
    if "overload" not in decorators or ast.get_docstring(stub):
        assert ast.get_docstring(stub) == documented, f"{name}: the stub's docstring is not the module's"
    if "property" in decorators:
        assert inspect.isgetsetdescriptor(found) or inspect.ismemberdescriptor(found)
        return
    assert isinstance(found, staticmethod) == ("staticmethod" in decorators)
    found = found.__func__ if isinstance(found, staticmethod) else found
    arguments = stub.args
    expected = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    expected += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]
    parameters = inspect.signature(found).parameters
    assert list(parameters) == expected
    defaults = {argument.arg: ast.literal_eval(value) for argument, value in zip(reversed(arguments.args), reversed(arguments.defaults))}
    empty = inspect.Parameter.empty
    for argument in arguments.args:
        default = parameters[argument.arg].default
        assert (argument.arg in defaults) == (default is not empty)
        assert default is empty or default == defaults[argument.arg]
    assert {name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY} == {a.arg for a in arguments.kwonlyargs}


def test_members_are_the_same():
    for node in STUB.body:
        if not isinstance(node, ast.ClassDef):
            continue
        stubbed = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        stubbed |= {name for member in node.body for name in assigned(member)}
        if any(ast.unparse(base) == "ClawdbotError" for base in node.bases):
            stubbed |= {"code", "kind", "detail"}
        found = {name for name in vars(getattr(_clawdbot, node.name)) if not name.startswith("_")}
        assert public(stubbed) == found, node.name


def test_everything_has_a_docstring():
    for name in clawdbot.__all__:
        value = getattr(clawdbot, name)
        assert not callable(value) or value.__doc__, name
        if not isinstance(value, type) or issubclass(value, (dict, Exception)):
            continue
        for member, found in vars(value).items():
            assert member.startswith("_") or inspect.getdoc(found), f"{name}.{member}"


def test_docs_name_every_option():
    model, runtime = clawdbot.Model, clawdbot.Runtime
    for found, names in (
        (model.from_pretrained, {*clawdbot.MODEL_OPTIONS, *clawdbot.RUNTIME_OPTIONS}),
        (model.generate, clawdbot.GENERATE_OPTIONS),
        (model.embed, clawdbot.EMBED_OPTIONS),
        (model.rerank, clawdbot.RERANK_OPTIONS),
        (runtime.load, clawdbot.MODEL_OPTIONS),
        (runtime.plan, ["verify", "from_pretrained"]),
        (runtime.pack, clawdbot.PACK_OPTIONS),
        (runtime.evaluate, clawdbot.EVALUATE_OPTIONS),
        (runtime, clawdbot.RUNTIME_OPTIONS),
    ):
        for name in names:
            assert name in inspect.getdoc(found), f"{found}: {name}"


def test_typed_dicts_are_the_core_s_options():
    # A function is no value, so it stands in no list.
    assert tuple(clawdbot.GenerateOptions.__annotations__) == (*clawdbot.GENERATE_OPTIONS, "logits_processor")
    assert tuple(clawdbot.ModelOptions.__annotations__) == clawdbot.MODEL_OPTIONS
    assert tuple(clawdbot.EmbedOptions.__annotations__) == clawdbot.EMBED_OPTIONS
    assert tuple(clawdbot.RerankOptions.__annotations__) == clawdbot.RERANK_OPTIONS
    assert tuple(clawdbot.PackOptions.__annotations__) == clawdbot.PACK_OPTIONS
    assert tuple(clawdbot.EvaluateOptions.__annotations__) == clawdbot.EVALUATE_OPTIONS
    assert set(clawdbot.LoadOptions.__annotations__) == {*clawdbot.MODEL_OPTIONS, *clawdbot.RUNTIME_OPTIONS}


def test_stubtest(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy.stubtest", "clawdbot"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_mistakes(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import clawdbot\n"
        "model = clawdbot.Model.from_pretrained('x', weights='int8', threads=2)\n"
        "one: clawdbot.Completion = model.generate('a', max_tokens=3)\n"
        "ids: clawdbot.Completion = model.generate([1, 2])\n"
        "many: list[clawdbot.Completion] = model.generate(['a', 'b'])\n"
        "lists: list[clawdbot.Completion] = model.generate([[1], [2]])\n"
        "each: list[clawdbot.Completion] = model.generate(['a', 'b'], [{'max_tokens': 3}, None])\n"
        "some: list[clawdbot.Completion | Exception] = model.generate(['a', 'b'], return_exceptions=True)\n"
        "answer: clawdbot.Completion = model.session().chat([{'role': 'user', 'content': 'a'}], max_tokens=3)\n"
        "again: clawdbot.Completion = clawdbot.Completion(answer.to_dict())\n"
        "model.generate('a', stop={'b'}, stop_token_ids=range(3))\n"
        "several: list[clawdbot.Completion] = model.generate(text for text in ['a', 'b'])\n"
        "vectors = model.embed(iter(['a', 'b']))\n"
        "print(vectors.shape, [one for one in model.embed(['a'], return_exceptions=True) if isinstance(one, Exception)])\n"
        "scores: list[float | Exception] = model.rerank('a', ['b'], return_exceptions=True)\n"
        "model.render_chat(({'role': r, 'content': 'a'} for r in ['user']), variables={'x': 1}, y=2)\n"
        "model.generate('a', max_token=3)  # wrong\n"
        "clawdbot.Model.from_pretrained(weights='int9')  # wrong\n"
        "model.generate('a', max_tokens='3')  # wrong\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    wrong = {i for i, line in enumerate(program.read_text().splitlines(), start=1) if "# wrong" in line}
    assert lines == wrong, done.stdout
