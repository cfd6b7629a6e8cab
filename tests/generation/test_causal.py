from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from generators import CHAT_TEMPLATE, make_generator
from plora_cl.errors import ModelError
from plora_cl.generation.causal import CausalGenerator
from plora_cl.state import RandomState

WORDS = [f"word{i}" for i in range(70)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_generator(tmp_path_factory.mktemp("lm"), WORDS)


def generator(folder: Path | str, **changes: float) -> CausalGenerator:
    options = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0, **changes}
    return CausalGenerator(
        str(folder),
        max_new_tokens=int(options["max_new_tokens"]),
        temperature=options["temperature"],
        top_p=options["top_p"],
        device=torch.device("cpu"),
    )


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_what_is_written_depends_on_the_arguments_alone(folder: Path) -> None:
    first, second = generator(folder), generator(folder)
    texts = first.generate("word1 word2", count=3, seed=7)
    assert len({text.text for text in texts}) == 3
    assert all(1 <= text.tokens <= 6 for text in texts)
    first.generate("word3", count=2, seed=1)
    torch.manual_seed(99)
    first.release()
    assert first.generate("word1 word2", count=3, seed=7) == texts
    assert second.generate("word1 word2", count=3, seed=7) == texts
    assert second.generate("word1 word2", count=3, seed=8) != texts


def test_half_precision_is_another_generator_and_repeats_itself(folder: Path) -> None:
    whole = generator(folder)
    half, again = (
        CausalGenerator(
            str(folder),
            max_new_tokens=6,
            temperature=1.0,
            top_p=1.0,
            device=torch.device("cpu"),
            dtype=torch.bfloat16,
        )
        for _ in range(2)
    )
    assert half.digest == again.digest != whole.digest
    texts = half.generate("word1 word2", count=3, seed=7)
    assert again.generate("word1 word2", count=3, seed=7) == texts


def test_it_leaves_the_random_generators_as_they_were(folder: Path) -> None:
    before = saved(RandomState.seeded(3).state_dict())
    mine = generator(folder)
    mine.generate("word1", count=2, seed=5)
    assert mine.digest
    assert saved(RandomState().state_dict()) == before


def test_a_low_temperature_takes_the_most_probable_word_of_all(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("word1 word2", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = model(ids).logits[0, -1].argmax().item()
    (text,) = generator(folder, temperature=1e-6, max_new_tokens=1).generate(
        "word1 word2", count=1, seed=0
    )
    assert text.text == tokenizer.decode([best], skip_special_tokens=True)


def test_without_a_threshold_every_word_can_come(folder: Path) -> None:
    """Neither the 50 most probable ones, as libraries have it, nor fewer."""
    many = generator(folder, temperature=50.0, max_new_tokens=1).generate(
        "word1", count=2500, seed=0
    )
    assert {text.text for text in many} >= set(WORDS)
    few = generator(folder, temperature=50.0, max_new_tokens=1, top_p=0.2).generate(
        "word1", count=300, seed=0
    )
    assert len({text.text for text in few}) < len(WORDS) / 2


def test_tokens_are_counted_up_to_the_end(folder: Path) -> None:
    texts = generator(folder, temperature=50.0, max_new_tokens=20).generate(
        "word1", count=50, seed=0
    )
    ended = [text for text in texts if text.tokens < 20]
    words = [(len(text.text.split()), text.tokens - 1) for text in ended]
    assert all(count <= tokens for count, tokens in words)  # unknown words are not shown
    assert sum(count == tokens for count, tokens in words) > len(words) / 2 > 0


def test_a_model_with_a_chat_template_is_asked_through_it(tmp_path: Path, folder: Path) -> None:
    chatting = generator(make_generator(tmp_path, [*WORDS, "user", "assistant", ":"], chat=True))
    assert chatting.instruction_tuned
    assert not generator(folder).instruction_tuned
    ids = chatting._prompt_ids(chatting._asked("word1 word2"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.decode(ids) == "user : word1 word2 assistant :"


def test_the_digest_tells_weights_vocabulary_and_sampling_apart(
    folder: Path, tmp_path: Path
) -> None:
    digest = generator(folder).digest
    assert generator(folder).digest == digest
    assert generator(folder, temperature=0.5).digest != digest
    assert generator(folder, top_p=0.5).digest != digest
    assert generator(folder, max_new_tokens=7).digest != digest
    other = make_generator(tmp_path / "words", WORDS[::-1])
    assert generator(other).digest != digest
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.ln_f.bias[0] += 1e-6
    same = make_generator(tmp_path / "weights", WORDS)
    assert generator(same).digest == digest
    model.save_pretrained(same)
    assert generator(same).digest != digest


def test_defaults_of_sampling_that_come_with_a_model_change_no_text(
    folder: Path, tmp_path: Path
) -> None:
    texts = generator(folder).generate("word1 word2", count=5, seed=0)
    other = make_generator(tmp_path, WORDS)
    file = other / "generation_config.json"
    own = {"repetition_penalty": 90.0, "min_new_tokens": 6, "return_dict_in_generate": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    assert generator(other).generate("word1 word2", count=5, seed=0) == texts


@pytest.mark.parametrize("change", [{"n_head": 8}, {"eos_token_id": [0, *range(5, 40)]}])
def test_a_model_that_computes_differently_with_the_same_weights_has_another_digest(
    tmp_path: Path, change: dict[str, object]
) -> None:
    folder = make_generator(tmp_path, WORDS, spread=0.5)
    mine = generator(folder)
    texts = mine.generate("word1 word2 word3", count=5, seed=0)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    changed = generator(folder)
    assert changed.generate("word1 word2 word3", count=5, seed=0) != texts
    assert changed.digest != mine.digest
    assert changed.weights_digest == mine.weights_digest


def test_a_model_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    for name, reason in [
        (str(tmp_path / "absent.gguf"), "there is no file"),
        (str(tmp_path), "cannot load"),
        ("packaged:other", "packaged: packaged:smollm2"),
    ]:
        with pytest.raises(ModelError, match=reason) as caught:
            generator(name)
        assert str(caught.value).startswith("generation_model: ")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_packaged_model_writes_english() -> None:
    smol = generator("packaged:smollm2", max_new_tokens=24, temperature=0.7, top_p=0.9)
    assert smol.instruction_tuned
    texts = smol.generate("Write one short sentence about football.", count=4, seed=0)
    words = " ".join(text.text for text in texts).lower().split()
    assert {"the", "a", "of"} & set(words)
    assert any("football" in word or "ball" in word or "team" in word for word in words)
    assert smol.generate("Write one short sentence about football.", count=4, seed=0) == texts


def test_more_than_the_model_has_positions_for_is_refused_with_both_numbers(folder: Path) -> None:
    short = generator(folder, max_new_tokens=126)
    assert len(short.generate("word1 word2", count=1, seed=0)) == 1
    with pytest.raises(ModelError, match=r"max_gen_length: 127 .* 2 tokens .* 128 tokens"):
        generator(folder, max_new_tokens=127).generate("word1 word2", count=1, seed=0)
