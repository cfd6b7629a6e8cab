"""``plora-cl completion``: a script that completes commands and flags in a shell."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from plora_cl.cli.command import Answer, argument, command
from plora_cl.cli.parser import SUPPRESS, Commands, OneOf, parser_of
from plora_cl.config.presets import preset_names
from plora_cl.config.published.json_schema import settings_schema

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = (
    "bash > ~/.local/share/bash-completion/completions/plora-cl",
    "zsh > ~/.zfunc/_plora-cl    # a folder in $fpath",
    "fish > ~/.config/fish/completions/plora-cl.fish",
)


@dataclass(slots=True)
class _Known:
    """What may follow a command.

    Attributes:
        purpose: Of the command.
        flags: Each flag, and the values that it takes, if they are listed.
        words: What may stand for the other arguments.
        commands: Its commands.
    """

    purpose: str
    flags: dict[str, Sequence[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    commands: Mapping[str, _Known] = field(default_factory=dict)


@command(
    "completion",
    "Print a script that completes commands, flags and listed values of plora-cl in a shell. It "
    "is static: print it again after an update, or when a package adds flags.",
    argument("shell", type=OneOf(*_SHELLS), metavar="bash|zsh|fish", help="the shell"),
    examples=_EXAMPLES,
    ok="the script was printed",
)
def run_completion(arguments: Namespace) -> Answer:
    """Print a completion script."""
    from plora_cl.cli.main import COMMANDS

    known = _commands(COMMANDS)
    lines = list(_SCRIPTS[arguments.shell](known))
    return Answer({"shell": arguments.shell, "script": "\n".join(lines)}, lines)


def _commands(commands: Commands) -> dict[str, _Known]:
    return {name: _known(target, name, purpose) for name, (target, purpose) in commands.items()}


def _known(target: str, name: str, purpose: str) -> _Known:
    found = _Known(purpose)
    if name == "checkpoints":
        from plora_cl.cli.checkpoints.main import COMMANDS

        found.commands = _commands(COMMANDS)
        return found
    listed = {name: part.get("enum", ()) for name, part in settings_schema()["properties"].items()}
    listed["preset"] = preset_names()
    for action in parser_of(target, name)._actions:
        of_type = action.type.choices if isinstance(action.type, OneOf) else ()
        values = [str(choice) for choice in of_type or listed.get(action.dest, ())]
        if not action.option_strings:
            found.words += values
        for flag in action.option_strings:
            if flag.startswith("--") and (action.help != SUPPRESS or flag == "--help"):
                found.flags[flag] = values
    return found


def _bash(known: Mapping[str, _Known]) -> Iterator[str]:
    yield "# bash completion of plora-cl; made by: plora-cl completion bash"
    yield "_plora_cl() {"
    yield '    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=""'
    yield '    case "${COMP_WORDS[1]} $before" in'
    for name, one in known.items():
        for flag, values in one.flags.items():
            if values:
                yield f'        "{name} {flag}")'
                yield f'            COMPREPLY=($(compgen -W {_words(values)} -- "$current"))'
                yield "            return;;"
    yield "    esac"
    yield '    case "$COMP_CWORD ${COMP_WORDS[1]} ${COMP_WORDS[2]}" in'
    yield f'        "1 "*) words={_words(known)};;'
    for name, one in known.items():
        if one.commands:
            yield f'        "2 {name} "*) words={_words(one.commands)};;'
        for inner, below in one.commands.items():
            yield f'        *" {name} {inner}") words={_words([*below.words, *below.flags])};;'
        if not one.commands:
            yield f'        *" {name} "*) words={_words([*one.words, *one.flags])};;'
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield '    [[ $current == -* || $COMP_CWORD == 1 ]] || COMPREPLY+=($(compgen -f -- "$current"))'
    yield "}"
    yield "complete -o filenames -F _plora_cl plora-cl"


def _zsh(known: Mapping[str, _Known]) -> Iterator[str]:
    yield "#compdef plora-cl"
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from _bash(known)
    # The first key press only loads the file, as a function
    yield "[[ $funcstack[1] == _plora-cl ]] && _bash_complete -o filenames -F _plora_cl"


def _fish(known: Mapping[str, _Known]) -> Iterator[str]:
    yield "# fish completion of plora-cl; made by: plora-cl completion fish"
    for name, one in known.items():
        yield _fish_word("__fish_use_subcommand", name, one.purpose)
        here = f"__fish_seen_subcommand_from {name}"
        nowhere = f"{here}; and not __fish_seen_subcommand_from {' '.join(one.commands)}"
        for inner, below in one.commands.items():
            yield _fish_word(nowhere, inner, below.purpose)
            yield from _fish_flags(f"{here}; and __fish_seen_subcommand_from {inner}", below)
        yield from _fish_flags(here, one)


def _fish_word(condition: str, word: str, purpose: str) -> str:
    return (
        f"complete -c plora-cl -n {shlex.quote(condition)} -f -a {word} -d {shlex.quote(purpose)}"
    )


def _fish_flags(condition: str, one: _Known) -> Iterator[str]:
    start = f"complete -c plora-cl -n {shlex.quote(condition)}"
    if one.words:
        yield f"{start} -a {_words(one.words)}"
    for flag, values in one.flags.items():
        listed = f" -x -a {_words(values)}" if values else ""
        yield f"{start} -l {flag.removeprefix('--')}{listed}"


def _words(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
