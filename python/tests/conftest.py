"""Fixtures: the built-in model, and directories made from the built-in model's own files."""

import json
import pathlib
import shutil

import pytest

import clawdbot

ASSETS = pathlib.Path(__file__).parents[2] / "clawdbot-core" / "assets" / "builtin"
PROMPT = "Once upon a time"


@pytest.fixture(scope="session")
def model():
    with clawdbot.Model.from_pretrained() as model:
        yield model


@pytest.fixture
def directory(tmp_path):
    """A model directory of its own, to be damaged."""
    target = tmp_path / "model"
    shutil.copytree(ASSETS, target)
    return target


@pytest.fixture
def edit_json():
    """Changes a JSON file: `edit_json(path, key=value)`; None removes the key."""

    def edit(path, **changes):
        content = json.loads(path.read_text())
        content.update(changes)
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit
