"""A language model is tuned to write the texts of a task, with a LoRA that comes out again."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from generation.test_causal import saved
from generators import ScriptedGenerator, make_generator
from plora_cl.checkpoint.snapshot.staging import separate_copy
from plora_cl.errors import IncompatibleCheckpointError, ModelError, TrainingError
from plora_cl.generation.causal import CausalGenerator
from plora_cl.generation.lora import Lora
from plora_cl.generation.lora_tuning import Row, Tuned, TuningExample, TuningPlan, TuningState, tune
from plora_cl.generation.text_cache import CachedGenerator
from plora_cl.state import RandomState
from plora_cl.units import run_through

CATS, DOGS = ["meow", "purr", "paw"], ["bark", "bone", "leash"]
WORDS = [*CATS, *DOGS, "cat", "dog", "text", "user", "assistant", ":", "a", "b", "c"]
PLAN = TuningPlan(examples=9, epochs=24, batch_size=4, learning_rate=0.05, r=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_generator(tmp_path_factory.mktemp("lm"), WORDS, spread=0.5)


def generator(folder: Path, *, longest: int = 4, **options: Any) -> CausalGenerator:
    return CausalGenerator(
        str(folder),
        max_new_tokens=longest,
        temperature=1.0,
        top_p=1.0,
        device=torch.device("cpu"),
        **options,
    )


def example(text: str, *prompts: str) -> TuningExample:
    return TuningExample(text, prompts)


EXAMPLES = [
    example(" ".join(words[(i + k) % 3] for k in range(3)), f"text : {label}", f"{label} text")
    for i in range(6)
    for label, words in (("cat", CATS), ("dog", DOGS))
]


def tuned(
    mine: CausalGenerator, plan: TuningPlan = PLAN, examples: Sequence[TuningExample] = EXAMPLES
) -> Tuned:
    return run_through(mine.tune(examples, plan, TuningState(), seed=5, what="tuning"))


@pytest.fixture(scope="module")
def result(folder: Path) -> Tuned:
    return tuned(generator(folder))


def share_of(words: Sequence[str], mine: CausalGenerator, prompt: str, lora: Lora | None) -> float:
    """Return how many of the words that are written are among ``words``."""
    texts = mine.generate(prompt, count=60, seed=1, lora=lora)
    written = [word for text in texts for word in text.text.split()]
    return sum(word in words for word in written) / len(written)


def test_the_loss_falls_and_each_class_gets_its_own_words(folder: Path, result: Tuned) -> None:
    mine = generator(folder)
    assert len(result.losses) == PLAN.epochs
    assert result.losses[-1] < 0.6 * result.losses[0]
    for own, prompts in ((CATS, ("text : cat", "cat text")), (DOGS, ("text : dog", "dog text"))):
        for prompt in prompts:
            assert share_of(own, mine, prompt, None) < 0.4
            assert share_of(own, mine, prompt, result.lora) > 0.65


def test_it_learns_where_texts_end(folder: Path, result: Tuned) -> None:
    mine = generator(folder, longest=12)
    lengths = [t.tokens for t in mine.generate("text : cat", count=40, seed=0, lora=result.lora)]
    assert sorted(lengths)[20] == 4  # three words and the end
    before = [text.tokens for text in mine.generate("text : cat", count=40, seed=0)]
    assert sorted(before)[20] > 4


def test_the_first_loss_is_that_of_the_plain_model_on_the_text_alone(folder: Path) -> None:
    plan = TuningPlan(examples=9, epochs=1, batch_size=2, learning_rate=0.05, r=2)
    examples = [example("meow purr", "text : cat"), example("bone", "dog")]
    found = tuned(generator(folder), plan, examples)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    costs = []
    for text, (prompt,) in examples:
        ids = tokenizer(f"{prompt} {text} <end>", return_tensors="pt")["input_ids"]
        first = len(prompt.split())
        with torch.no_grad():
            logits = model(ids).logits[0]
        costs.append(
            functional.cross_entropy(logits[first - 1 : -1], ids[0, first:], reduction="none")
        )
    assert [len(cost) for cost in costs] == [3, 2]
    assert found.losses == [pytest.approx(torch.cat(costs).mean().item(), rel=1e-5)]


def test_only_the_lora_learns_and_the_model_is_the_same_to_the_bit_afterwards(
    folder: Path, result: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = generator(folder)
    model = mine._loaded()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    texts, trained = mine.generate("cat", count=4, seed=0), []
    original = torch.nn.utils.clip_grad_norm_

    def clip(parameters: Any, limit: float) -> torch.Tensor:
        trained.append({n for n, p in model.named_parameters() if p.requires_grad})
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        return original(parameters, limit)

    monkeypatch.setattr("plora_cl.generation.lora_tuning.clip_grad_norm_", clip)
    tuned(mine)
    assert len(trained) == PLAN.epochs * 3
    assert all(".lora_" in name for names in trained for name in names)
    assert {len(names) for names in trained} == {len(result.lora.weights)} == {8}
    mine.generate("cat", count=4, seed=0, lora=result.lora)
    assert mine._loaded() is model
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not hasattr(model, "peft_config")
    assert mine.generate("cat", count=4, seed=0) == texts


def test_the_result_depends_on_examples_plan_and_seed_alone(folder: Path, result: Tuned) -> None:
    mine = generator(folder)
    mine.generate("cat", count=2, seed=0, lora=result.lora)
    torch.manual_seed(99)
    again = tuned(mine)
    assert again.losses == result.losses
    assert again.lora.digest == result.lora.digest
    other = run_through(mine.tune(EXAMPLES, PLAN, TuningState(), seed=6, what="tuning"))
    assert other.lora.digest != result.lora.digest


def test_it_leaves_the_random_generators_as_they_were(folder: Path) -> None:
    before = saved(RandomState.seeded(3).state_dict())
    mine = generator(folder)
    lora = tuned(mine).lora
    assert saved(RandomState().state_dict()) == before
    mine.generate("cat", count=2, seed=0, lora=lora)
    assert saved(RandomState().state_dict()) == before


def test_a_stop_between_batches_leaves_the_model_as_it_was(folder: Path, result: Tuned) -> None:
    mine = generator(folder)
    texts = mine.generate("cat", count=4, seed=0)
    units = mine.tune(EXAMPLES, PLAN, TuningState(), seed=5, what="tuning")
    told = [next(units) for _ in range(5)]
    units.close()
    assert told == [("tuning", done, PLAN.epochs * 3) for done in range(1, 6)]
    assert mine.generate("cat", count=4, seed=0) == texts
    assert tuned(mine).lora.digest == result.lora.digest


@pytest.mark.parametrize("batches", [1, 3, 4, PLAN.epochs * 3])
def test_it_resumes_after_any_batch_to_the_same_bits(
    folder: Path, result: Tuned, batches: int
) -> None:
    first, state = generator(folder), TuningState()
    list(itertools.islice(first.tune(EXAMPLES, PLAN, state, seed=5, what="tuning"), batches))
    bytes_of_state = saved(separate_copy(state.state_dict()))
    torch.manual_seed(99)
    second, twin = generator(folder), TuningState()
    twin.load_state_dict(torch.load(io.BytesIO(bytes_of_state), weights_only=True))
    assert saved(separate_copy(twin.state_dict())) == bytes_of_state
    rest = second.tune(EXAMPLES, PLAN, twin, seed=5, what="tuning")
    found, units = [], 0
    while True:
        before = saved(RandomState().state_dict())
        try:
            next(rest)
        except StopIteration as end:
            found.append(end.value)
            break
        units += 1
        assert saved(RandomState().state_dict()) == before
    assert units == PLAN.epochs * 3 - batches
    assert found[0].losses == result.losses
    assert found[0].lora.digest == result.lora.digest


class Counted(list[list[Row]]):
    """Examples that count how often one of them is looked at."""

    looks = 0

    def __getitem__(self, index: Any, /) -> Any:
        self.looks += 1
        return super().__getitem__(index)


def test_each_example_is_looked_at_once_an_epoch_however_many_batches_there_are(
    folder: Path,
) -> None:
    mine, plan = generator(folder), TuningPlan(12, epochs=3, batch_size=1, learning_rate=0.1, r=1)
    examples = Counted([mine._row(e.prompts[0], e.text)] for e in EXAMPLES)
    run_through(tune(mine._loaded(), examples, plan, TuningState(), seed=5, what="tuning"))
    looks_at_each = 2  # how many prompts it has, and one of them
    assert examples.looks == looks_at_each * plan.epochs * len(examples)


def test_a_lora_filled_from_other_tensors_writes_the_same(folder: Path, result: Tuned) -> None:
    copied = Lora({name: tensor.clone() for name, tensor in result.lora.weights.items()})
    first, second = generator(folder), generator(folder)
    texts = first.generate("dog", count=5, seed=2, lora=result.lora)
    first.release()
    assert copied.digest == result.lora.digest
    assert second.generate("dog", count=5, seed=2, lora=copied) == texts
    assert second.generate("dog", count=5, seed=2) != texts
    reverse = Lora(dict(reversed(copied.weights.items())))
    assert reverse.digest == copied.digest
    assert first.generate("dog", count=5, seed=2, lora=reverse) == texts


def test_rows_are_the_prompt_of_generation_and_the_text_after_it(
    tmp_path: Path, folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chatting = generator(make_generator(tmp_path, WORDS, chat=True), longest=3)
    for mine, asked in (
        (generator(folder, longest=3), "cat"),
        (chatting, "user : cat assistant :"),
    ):
        prompt = mine._prompt_ids(mine._asked("cat"))
        assert tokenizer.decode(prompt) == asked
        for text, learned in (
            ("a", "a <end>"),
            ("a b", "a b <end>"),
            ("a b c", "a b c"),
            ("a b c a", "a b c"),
        ):
            row = mine._row("cat", text)
            assert row.ids[: row.prompt_tokens] == prompt
            assert tokenizer.decode(row.ids[row.prompt_tokens :]) == learned


def test_a_half_precision_model_is_tuned_in_single_precision(folder: Path, result: Tuned) -> None:
    mine = generator(folder, dtype=torch.bfloat16)
    found = tuned(mine)
    assert {tensor.dtype for tensor in found.lora.weights.values()} == {torch.float32}
    assert found.losses[-1] < 0.6 * found.losses[0]
    assert found.lora.digest != result.lora.digest
    assert share_of(CATS, mine, "text : cat", found.lora) > 0.65


def test_models_of_linear_layers_are_tuned_too(folder: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=len(set(WORDS)) + 2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=0,
        bos_token_id=0,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    found = tuned(generator(tmp_path))
    assert len(found.lora.weights) == 2 * 7
    assert found.losses[-1] < 0.6 * found.losses[0]


def test_the_lora_decides_the_cached_text(tmp_path: Path) -> None:
    asked = ScriptedGenerator()
    cached = CachedGenerator(asked, tmp_path, {})
    loras = [None, *(Lora({"x.lora_A": torch.full((1, 2), value)}) for value in (0.0, 1.0))]
    first = [cached.generate("prompt", count=3, seed=1, lora=lora) for lora in loras]
    assert asked.worn == loras
    again = [cached.generate("prompt", count=3, seed=1, lora=lora) for lora in loras]
    assert again == first
    assert len(asked.asked) == 3
    assert len({tuple(texts) for texts in first}) == 3


def test_a_step_that_cannot_continue_is_explained(
    folder: Path, tmp_path: Path, result: Tuned
) -> None:
    wild = TuningPlan(examples=9, epochs=3, batch_size=4, learning_rate=1e30, r=2)
    with pytest.raises(TrainingError, match="lower replay_tuning_learning_rate"):
        tuned(generator(folder), wild)
    mine = generator(make_generator(tmp_path, WORDS))
    misfit = Lora({n: t[:, :1] if n.endswith("_A") else t for n, t in result.lora.weights.items()})
    with pytest.raises(IncompatibleCheckpointError, match="size mismatch"):
        mine.generate("cat", count=1, seed=0, lora=misfit)
    assert not any(isinstance(module, LoraLayer) for module in mine._loaded().modules())


def test_a_model_without_a_layer_to_adapt_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = generator(folder)
    model: Any = mine._loaded()
    model.transformer.h = torch.nn.ModuleList()
    with pytest.raises(
        ModelError, match=r"no LoRA can be put into a GPT2LMHeadModel.*replay_tuning: false"
    ):
        tuned(mine)
