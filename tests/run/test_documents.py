"""Promise: every `farebox` command a document tells a person to type exists, with the options it is given;
every command stands in the README; what the code cites of docs/MONEY.md is there.
"""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farebox.run.cli import COMMANDS, build
from needs import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_COMMAND = re.compile(r"(?:^|[\s`(&;|])farebox ([a-z][a-z-]*(?![-/.\w])(?: [^`\n&;|#)]*)?)")


def commands_of(document: Path) -> set[str]:
    """What stands after the word `farebox` in code, where a command is meant."""
    text = document.read_text(encoding="utf-8")
    code = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    return {match.group(1).strip() for part in code for match in _COMMAND.finditer(part)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_in_documents_exist(document: Path) -> None:
    for command in sorted(commands_of(document)):
        words = shlex.split(command.replace("...", "x"))
        assert words[0] in COMMANDS, f"{document.name}: there is no command farebox {words[0]}"
        path = words[:1] + (words[1:2] if _is_group(words[0]) and len(words) > 1 else [])
        help_text = _help(path)
        for word in words[len(path) :]:
            if word.startswith("--"):
                option = word.partition("=")[0]
                assert option in help_text, f"{document.name}: farebox {command}: no option {option}"


def test_commands_are_found_in_documents() -> None:
    assert "check-config" in {command.split()[0] for command in commands_of(REPOSITORY / "docs/DEPLOY.md")}


def test_the_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("## Command line") : readme.index("## Layout")]
    assert [name for name in COMMANDS if f"`{name}`" not in table] == []


def test_every_cited_section_of_the_money_page_exists() -> None:
    page = (REPOSITORY / "docs/MONEY.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (\d+)\.", page, re.MULTILINE))
    sources = [*(REPOSITORY / "python").rglob("*.py"), *(REPOSITORY / "rust_meter/src").rglob("*.rs")]
    sources += (REPOSITORY / "tests").rglob("*.py")
    cited = {
        number
        for source in sources
        for number in re.findall(r"MONEY sections? (\d+)", source.read_text(encoding="utf-8"))
    }
    assert cited
    assert cited <= sections


def _help(path: list[str]) -> str:
    done = CliRunner().invoke(build(path[0]), [*path, "--help"], terminal_width=200)
    assert done.exit_code == 0, f"farebox {' '.join(path)}: {done.output}"
    return done.output


def _is_group(command: str) -> bool:
    return "COMMAND [ARGS]" in _help([command])
