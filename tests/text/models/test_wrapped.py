"""The model inside of a wrapper says what the wrapper says, by the same tokens."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier, TextExplainer
from captum_aml.text.models.wrapped import model_behind
from captum_aml.text.saved import model_fingerprint
from tests._helpers.decoders import bpe_tokenizer, language_model
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TEXT = "the plot is not very good"


def tiny() -> PreTrainedModel:
    return bert_classifier(len(word_piece_tokenizer()))


def logits(model: nn.Module) -> Tensor:
    """What a model, or a wrapper, says of the text."""
    with torch.no_grad():
        output: Any = model(**word_piece_tokenizer()(TEXT, return_tensors="pt"))
    found: Tensor = output.logits
    return found


def scores(model: nn.Module, **options: Any) -> list[float]:
    (explanation,) = TextExplainer(model, word_piece_tokenizer(), **options)(TEXT)
    return list(explanation.scores)


def compiled(model: PreTrainedModel) -> nn.Module:
    wrapper = torch.compile(model, backend="eager")
    assert isinstance(wrapper, nn.Module)
    return wrapper


def compiled_in_place(model: PreTrainedModel) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_forward(model: PreTrainedModel) -> nn.Module:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def compiled_part(model: PreTrainedModel) -> nn.Module:
    layers: Any = model.get_submodule("bert.encoder.layer")
    layers[0] = torch.compile(layers[0], backend="eager")
    return model


def offloaded(model: PreTrainedModel) -> nn.Module:
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=torch.device("cpu"))
    return model


WRAPPERS: list[Callable[[PreTrainedModel], nn.Module]] = [
    compiled,
    compiled_in_place,
    compiled_forward,
    compiled_part,
    offloaded,
    nn.DataParallel,
    torch.optim.swa_utils.AveragedModel,
    lambda model: compiled(torch.nn.DataParallel(model)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_is_explained_as_its_model_is(wrap: Callable[..., nn.Module]) -> None:
    wrapper = wrap(tiny())
    assert torch.allclose(logits(wrapper), logits(tiny()), atol=1e-6)
    assert scores(wrapper) == pytest.approx(scores(tiny()), abs=1e-6)
    assert torch.allclose(logits(wrapper), logits(tiny()), atol=1e-6)


def test_a_class_of_text_models_takes_wrappers_too() -> None:
    wrapper: Any = nn.DataParallel(tiny())
    classifier = TextClassifier(wrapper, word_piece_tokenizer())
    assert classifier.model is wrapper.module
    assert TextExplainer(classifier)(TEXT)[0].scores == tuple(scores(tiny()))
    with pytest.raises(InvalidInputError, match=r"a model of transformers, got Linear"):
        TextClassifier(nn.Linear(2, 2), word_piece_tokenizer())  # type: ignore[arg-type]


def test_offloaded_weights_are_those_of_the_fingerprint() -> None:
    classifiers = [TextClassifier(m, word_piece_tokenizer()) for m in (tiny(), offloaded(tiny()))]  # type: ignore[arg-type]
    first, second = map(model_fingerprint, classifiers)
    assert first == second


@pytest.mark.parametrize("wrap", [compiled_in_place, compiled_forward, compiled_part])
def test_a_compiled_model_stays_compiled_and_shares_its_weights(
    wrap: Callable[..., nn.Module],
) -> None:
    model = wrap(tiny())
    before = {name: dict(vars(part)) for name, part in model.named_modules()}
    found = model_behind(model)
    assert found is not model
    assert before == {name: dict(vars(part)) for name, part in model.named_modules()}
    mine = {weight.data_ptr() for weight in found.parameters()}
    assert mine == {weight.data_ptr() for weight in model.parameters()}


def test_a_plain_model_is_itself() -> None:
    model = tiny()
    assert model_behind(model) is model
    assert model_behind(nn.Linear(2, 2)) is not None
    with pytest.raises(InvalidInputError, match=r"got Sequential"):
        TextExplainer(nn.Sequential(nn.Linear(2, 2)), word_piece_tokenizer())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_cpu_is_computed_in_float32(dtype: torch.dtype) -> None:
    model = tiny().to(dtype)
    with pytest.warns(UserWarning, match=f"{str(dtype)[6:]} weights are explained in float32"):
        explainer = TextExplainer(model, word_piece_tokenizer())
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    same = copy.deepcopy(model).float()
    assert torch.equal(logits(explainer.text_model.model), logits(same))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert explainer(TEXT)[0].scores == tuple(scores(same))


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of one process."""
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.skipif(sys.platform != "linux", reason="gloo's group of one process in memory")
class TestProcesses:
    def test_data_parallel(self) -> None:
        assert scores(DistributedDataParallel(tiny())) == pytest.approx(scores(tiny()), abs=1e-6)

    def test_spread_weights_are_refused(self) -> None:
        from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

        whole = FullyShardedDataParallel(tiny(), device_id=torch.device("cpu"))
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        for model in (whole, fully_shard(tiny(), mesh=mesh)):
            with pytest.raises(InvalidInputError, match=r"FSDP or DeepSpeed .* save it whole"):
                TextExplainer(model, word_piece_tokenizer())


class TestPEFT:
    @pytest.fixture(autouse=True)
    def _peft(self) -> None:
        pytest.importorskip("peft")

    def tuned(self, kind: str = "LoraConfig", **options: Any) -> Any:
        """The model with an adapter of random weights."""
        import peft

        if kind == "LoraConfig":
            options = {"r": 2, "init_lora_weights": False, **options}
            options = {"target_modules": ["query", "value"], **options}
        config = getattr(peft, kind)(task_type="SEQ_CLS", **options)
        torch.manual_seed(0)
        return peft.get_peft_model(tiny(), config).eval()

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"target_modules": ["word_embeddings"]},
            {"modules_to_save": ["classifier", "word_embeddings"]},
            {"use_dora": True},
        ],
    )
    def test_wrapper_tuner_and_model_inside_are_one(self, options: dict[str, Any]) -> None:
        wrapper = self.tuned(**options)
        inside = wrapper.base_model.model
        assert model_behind(wrapper) is model_behind(wrapper.base_model) is inside
        assert not torch.allclose(logits(wrapper), logits(tiny()), atol=1e-3)
        assert torch.equal(logits(wrapper), logits(inside))
        expected = scores(wrapper)
        assert expected == scores(inside) == scores(compiled(wrapper))
        wrapper.merge_adapter()
        assert expected == pytest.approx(scores(wrapper), abs=1e-4)

    def test_the_active_adapter_is_explained(self) -> None:
        from peft import LoraConfig

        wrapper = self.tuned()
        first = scores(wrapper)
        other = LoraConfig(r=2, init_lora_weights=False, target_modules=["key"])
        wrapper.add_adapter("other", other)
        assert scores(wrapper) == first
        wrapper.set_adapter("other")
        assert torch.equal(logits(wrapper), logits(wrapper.base_model.model))
        second = scores(wrapper)
        assert second != pytest.approx(first, abs=1e-3)
        assert second == pytest.approx(scores(wrapper.merge_and_unload()), abs=1e-4)

    def test_a_language_model(self) -> None:
        from peft import LoraConfig, get_peft_model

        words = bpe_tokenizer(metaspace=True)
        for kind, task, targets in (
            ("llama", "CAUSAL_LM", ["q_proj"]),
            ("t5", "SEQ_2_SEQ_LM", ["q"]),
        ):
            config = LoraConfig(
                task_type=task, r=2, target_modules=targets, init_lora_weights=False
            )
            wrapper = get_peft_model(language_model(kind, len(words)), config).eval()
            explainer = TextExplainer(
                wrapper, words, template="{text} Label:", labels=["positive", "negative"], n_steps=2
            )
            assert explainer.text_model.model is wrapper.base_model.model
            assert len(explainer("a dull film")[0].scores) == 3

    def test_virtual_tokens_are_refused(self) -> None:
        for kind in ("PromptTuningConfig", "PrefixTuningConfig"):
            wrapper = self.tuned(kind, num_virtual_tokens=3)
            with pytest.raises(InvalidInputError, match=r"layers .*_TUNING .*LayerAMLAttribution"):
                TextExplainer(wrapper, word_piece_tokenizer())


class TestAdapterFolder:
    @pytest.fixture(autouse=True)
    def _peft(self) -> None:
        pytest.importorskip("peft")

    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        """A bare model with its tokenizer, which adapters are made for."""
        folder = tmp_path / "base"
        model: Any = tiny()
        model.bert.save_pretrained(folder)
        word_piece_tokenizer().save_pretrained(folder)
        return folder

    def tuned(self, base: Path, **options: Any) -> Any:
        """A classifier of three classes tuned from the bare model, new entries included."""
        from peft import LoraConfig, get_peft_model
        from transformers import BertForSequenceClassification

        torch.manual_seed(0)
        model = BertForSequenceClassification.from_pretrained(base, num_labels=3)
        options = {"target_modules": ["query"], "init_lora_weights": False, **options}
        return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, **options)).eval()

    def test_base_head_and_tokenizer_come_from_where_they_are(
        self, base: Path, tmp_path: Path
    ) -> None:
        folder, tuned = tmp_path / "adapter", self.tuned(base)
        tuned.save_pretrained(folder)
        assert not (folder / "config.json").exists()
        model = TextExplainer(folder, device="cpu").text_model
        assert model.label_names == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert torch.allclose(logits(model.model), logits(tuned), atol=1e-5)
        tuned.config.id2label = {0: "bad", 1: "so so", 2: "good"}
        tuned.config.save_pretrained(folder)
        assert TextExplainer(folder).text_model.label_names == ("bad", "so so", "good")
        # The base model beside it, by a relative path.
        path = folder / "adapter_config.json"
        path.write_text(path.read_text().replace(f'"{base}"', '"../base"'))
        assert torch.allclose(
            logits(TextExplainer(folder).text_model.model), logits(tuned), atol=1e-5
        )
        path.write_text(path.read_text().replace("../base", "./nowhere"))
        with pytest.raises(InvalidInputError, match=r"base model .* no folder './nowhere'"):
            TextExplainer(folder)

    def test_new_entries_of_the_vocabulary(self, base: Path, tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import BertForSequenceClassification

        model = BertForSequenceClassification.from_pretrained(base, num_labels=3)
        model.resize_token_embeddings(len(word_piece_tokenizer()) + 3)
        config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
        config.modules_to_save = ["word_embeddings"]
        tuned = get_peft_model(model, config).eval()
        tuned.save_pretrained(tmp_path / "adapter")
        found = TextExplainer(tmp_path / "adapter", device="cpu").text_model.model
        assert torch.allclose(logits(found), logits(tuned), atol=1e-5)

    def test_missing_weights_are_refused(self, base: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        self.tuned(base).save_pretrained(tmp_path)
        file = tmp_path / "adapter_model.safetensors"
        weights = {name: w for name, w in load_file(file).items() if "lora_A" not in name}
        save_file(weights, file)
        with pytest.raises(InvalidInputError, match=r"lacks the weights .*lora_A"):
            TextExplainer(tmp_path)

    def test_a_folder_that_names_no_base_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(InvalidInputError, match=r"adapter_config.json names its base model"):
            TextExplainer(tmp_path)
