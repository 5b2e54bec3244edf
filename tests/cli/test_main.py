"""The entry point: help, version, exit codes, a missing typer."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import typer
from typer.testing import CliRunner

import scio
from scio.cli import app as cli_app
from scio.cli.app import app
from tests.cli.conftest import ROOT, Run, environment


def options_of_the_app() -> dict[str, set[str]]:
    """Long options per command."""
    group = typer.main.get_command(app)
    return {
        name: {o for p in command.params for o in p.opts if o.startswith("--")}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def test_help_names_the_commands_and_the_exit_codes(scio_run: Run) -> None:
    done = scio_run("--help", NO_COLOR="1")
    assert done.returncode == 0
    for word in ("info", "bench", "convert", "130 Ctrl-C"):
        assert word in done.stdout
    assert "\x1b" not in done.stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == f"scio {scio.__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["info", "--no-such-option"],
        ["bench"],
        ["bench", "x.h5ad", "--form", "cubes"],
        ["bench", "x.h5ad", "--batch-size", "0"],
        ["bench", "x.h5ad", "--runs", "many"],
        ["convert", "in.h5ad", "out.h5ad", "--layout", "slow"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["info", "bench"])
def test_stdin_is_refused_with_the_reason(scio_run: Run, command: str) -> None:
    done = scio_run(command, "-", NO_COLOR="1")
    assert done.returncode == 2
    assert "pipe" in done.stderr
    assert "give a path" in done.stderr


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from scio.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "info"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"scio: the command line needs {module}, which is not installed: pip install 'scio[cli]'"
    ]


def test_importing_the_package_loads_no_typer() -> None:
    code = (
        "import sys, scio.cli, scio.cli.peers; "
        "print([m for m in ('typer', 'rich', 'torch', 'anndata') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_script_is_installed_as_scio() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"scio": "scio.cli:main"}


def test_interrupt_in_a_command_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_app._machine, "describe", interrupted)
    result = CliRunner().invoke(app, ["info"])
    assert result.exit_code == 130
    assert "stopped" in result.output


def test_a_reader_that_goes_away_is_no_traceback(made: object) -> None:
    script = f"'{sys.executable}' -m scio.cli info '{made}' --json | true"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_the_reference_page_names_every_option_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for name, options in options_of_the_app().items():
        match = re.search(rf"^## `scio {name}.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        assert match is not None, name
        named = set(re.findall(r"--[a-z][a-z0-9-]*", match.group()))
        # "--no-log1p" stands for the switch --log1p
        named = {positive if (positive := f"--{n[5:]}") in options else n for n in named}
        assert named == options, name
