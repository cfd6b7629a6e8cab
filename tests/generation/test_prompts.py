from __future__ import annotations

import pytest

from plora_cl.generation.postprocess import cleaned, normalised_digest
from plora_cl.generation.prompts import (
    FOR_BASE_MODELS,
    FOR_INSTRUCTION_MODELS,
    Prompts,
    readable,
    require_valid,
)


@pytest.mark.parametrize("template", [*FOR_BASE_MODELS, *FOR_INSTRUCTION_MODELS])
def test_built_in_templates_are_valid_and_differ_by_class(template: str) -> None:
    require_valid(template)
    prompts = Prompts("news", ("sport", "arts"), (template,))
    assert prompts.prompt(0, 0) != prompts.prompt(1, 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Sci/Tech", "Sci/Tech"),
        ("5", "5"),
        ("very positive", "very positive"),
        ("yahoo_answers_topics", "yahoo answers topics"),
        ("  Office__Holder ", "Office Holder"),
    ],
)
def test_names_are_written_as_a_sentence_has_them(name: str, text: str) -> None:
    assert readable(name) == text


def test_templates_take_turns_and_fill_in_task_and_class() -> None:
    prompts = Prompts("ag_news", ("World", "Sci/Tech {x}"), ("{task}: {label}", "On {label} {{}}"))
    assert [prompts.prompt(1, chunk) for chunk in range(3)] == [
        "ag news: Sci/Tech {x}",
        "On Sci/Tech {x} {}",
        "ag news: Sci/Tech {x}",
    ]


def test_templates_of_the_user_go_before_built_in_ones() -> None:
    def chosen(templates: object, *, instruction_tuned: bool = False) -> tuple[str, ...]:
        return Prompts.of(
            "news",
            ("a", "b"),
            templates,  # type: ignore[arg-type]
            instruction_tuned=instruction_tuned,
        ).templates

    assert chosen(None) == FOR_BASE_MODELS
    assert chosen(None, instruction_tuned=True) == FOR_INSTRUCTION_MODELS
    assert chosen(["x {label}"], instruction_tuned=True) == ("x {label}",)
    assert chosen({"news": ["y {label}"]}) == ("y {label}",)
    assert chosen({"reviews": ["y {label}"]}) == FOR_BASE_MODELS


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("A news story:", "every class would get the same prompt"),
        ("{class}: {label}", r"\{class\} is unknown"),
        ("{label", "braces that stand for themselves"),
        ("{label.__class__}", r"\{label.__class__\} is unknown"),
        ("{label[0]}", r"\{label\[0\]\} is unknown"),
        ("{label:>9999999999}", r"\{label\} takes no format"),
        ("{label:{task.__class__}}", r"\{label\} takes no format"),
        ("{label} {task!r}", r"\{task\} takes no format"),
    ],
)
def test_a_template_that_makes_no_prompt_is_refused(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        require_valid(template)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("  one\n line \n\n another paragraph", "one line"),
        ("Sure, here it is:\n\nThe match ended.\n\nMore", "The match ended."),
        ("Only an announcement:", "Only an announcement:"),
        ('"Quoted as a whole"', "Quoted as a whole"),
        ("\u201cQuoted\u201d", "Quoted"),
        ('"He" said "she"', 'He" said "she'),
        ('"Half quoted', '"Half quoted'),
        (" \n\n\t", ""),
        ('"', '"'),
    ],
)
def test_the_first_paragraph_is_the_text(written: str, text: str) -> None:
    assert cleaned(written) == text


def test_texts_are_equal_up_to_case_and_white_space() -> None:
    assert normalised_digest(" The  Match\nended") == normalised_digest("the match ended")
    assert normalised_digest("the match ended") != normalised_digest("the match, ended")
    assert len(normalised_digest("")) == 16
