"""Names, aliases, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_aml import methods
from captum_aml.benchmark import BenchmarkSettings, run_benchmark
from captum_aml.cli.main import main
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.methods.adapter import Subject, scoring_method
from captum_aml.text import LabelledText, TextClassifier, TextExplainer
from tests._helpers.methods import IDS, LINEAR, MASK, REFERENCE, run
from tests._helpers.text_models import save_classifier


class TestBadInput:
    def test_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(
            InvalidInputError,
            match=r"expected one of mask-gradient, .*la, .*random, got 'limee'",
        ):
            methods.create("limee", LINEAR, LINEAR.embedding)

    def test_steps_where_there_are_none(self) -> None:
        with pytest.raises(InvalidInputError, match="n_steps: method 'occlusion' has no steps"):
            methods.create("occlusion", LINEAR, LINEAR.embedding, n_steps=3)

    def test_no_steps_at_all(self) -> None:
        with pytest.raises(InvalidInputError, match="n_steps: expected a positive number"):
            methods.create("ig", LINEAR, LINEAR.embedding, n_steps=0)

    def test_masker_where_none_is_used(self) -> None:
        with pytest.raises(
            InvalidInputError,
            match=r"masker: method 'ig' uses none.*"
            "aml, aml-tuned, aml-published, la, la-tuned, la-published$",
        ):
            methods.create("ig", LINEAR, LINEAR.embedding, masker="folder")

    def test_batch_size_of_zero(self) -> None:
        with pytest.raises(InvalidInputError, match="batch_size: expected 1 or more, got 0"):
            methods.create("ig", LINEAR, LINEAR.embedding, batch_size=0)

    def test_kernel_shap_with_one_sample(self) -> None:
        with pytest.raises(InvalidInputError, match="kernel-shap needs 2 samples"):
            methods.create("kernel-shap", LINEAR, LINEAR.embedding, n_steps=1)

    @pytest.mark.parametrize(
        ("name", "extra"),
        [("lime", "all"), ("kernel-shap", "all"), ("shap", "shap"), ("lime-text", "lime")],
    )
    def test_without_a_package_the_extra_is_named(
        self, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
        with pytest.raises(ImportError, match=rf'pip install "captum-aml\[{extra}\]"'):
            methods.create(name, LINEAR, LINEAR.embedding)

    def test_float_ids(self) -> None:
        with pytest.raises(InvalidInputError, match="ids: expected integer token ids"):
            run("ig", LINEAR, ids=IDS.float())

    def test_reference_of_another_shape(self) -> None:
        with pytest.raises(InvalidInputError, match=r"baselines: .*\(2, 6\).*got.*\(2, 5\)"):
            run("occlusion", LINEAR, reference=REFERENCE[:, :5])

    def test_target_of_wrong_length(self) -> None:
        with pytest.raises(InvalidInputError, match=r"class per example \(2,\)"):
            run("ig", LINEAR, target=torch.tensor([0, 1, 0]))

    def test_a_forward_function_without_classes(self) -> None:
        method = methods.create(
            "occlusion", lambda ids, mask: ids.float().sum(-1), LINEAR.embedding
        )
        with pytest.raises(InvalidInputError, match=r"forward_func: expected logits \(N, C\)"):
            method(IDS, REFERENCE, additional_forward_args=(MASK,))


class TestRegistry:
    def test_users_add_a_method_and_use_it_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("captum_aml.methods.registry._REGISTRY", {})

        def length(*_: object) -> object:
            def scores(ids: Tensor, baselines: Tensor, **__: object) -> Tensor:
                return (ids != baselines).float()

            return scores

        entry = methods.MethodSpec(name="flat", summary="all alike", factory=length)
        methods.register(entry)
        assert methods.available() == ("flat",)
        scores = methods.create("flat", LINEAR, LINEAR.embedding)(IDS, REFERENCE)
        assert scores.sum().item() == 8
        with pytest.raises(InvalidInputError, match="registered already"):
            methods.register(entry)
        methods.register(entry, replace=True)

    def test_a_method_is_found_everywhere_by_one_registration(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        capfdbinary: pytest.CaptureFixture[bytes],
    ) -> None:
        known = "captum_aml.methods.registry._REGISTRY"
        monkeypatch.setattr(known, dict(methods.registry._REGISTRY))

        @scoring_method(
            "later",
            "the later, the higher",
            family="other",
            aliases=("last",),
            steps=("places", 3),
            settings=lambda subject: {"n_steps": subject.n_steps},
        )
        def later(subject: Subject, call: Call) -> Tensor:
            places = torch.arange(1.0, call.inputs[0].shape[1] + 1)
            return places.expand(call.inputs[0].shape) * subject.n_steps

        # By name, scored only where there is something to explain.
        assert methods.available()[-1] == "later"
        scores = run("last", LINEAR, n_steps=2)
        assert scores.tolist() == [[0, 4, 6, 8, 0, 0], [0, 4, 6, 8, 10, 12]]
        # In a text model's explanations.
        model = save_classifier(tmp_path / "model")
        explainer = TextExplainer(TextClassifier.from_pretrained(model), method="later")
        (explanation,) = explainer("a good film")
        assert explanation.method == "later"
        assert list(explanation.scores) == sorted(explanation.scores)
        # In the benchmark.
        results = run_benchmark(
            TextClassifier.from_pretrained(model),
            [LabelledText("a good film"), LabelledText("a bad one")],
            tmp_path / "out",
            BenchmarkSettings(methods=("later",), metrics=("aopc-comprehensiveness",)),
        )
        assert results.rows[0].method == "later"
        assert results.rows[0].settings["n_steps"] == 3
        # On the command line.
        for command in (
            ["benchmark", "--methods", "list"],
            ["explain", "--model", str(model), "--method", "later", "a good"],
        ):
            with pytest.raises(SystemExit) as stop:
                main(command)
            out, err = capfdbinary.readouterr()
            assert stop.value.code in (0, None), err
            assert b"later" in out

    def test_the_names_users_can_give(self) -> None:
        assert methods.available() == (
            "mask-gradient",
            "aml", "aml-tuned", "aml-published", "la", "la-tuned", "la-published",
            "integrated-gradients", "gradient-shap", "input-x-gradient", "saliency", "smooth-grad",
            "deep-lift", "occlusion", "lime", "kernel-shap", "shapley-sampling", "shap",
            "lime-text", "attention", "attention-rollout", "random",
        )  # fmt: skip
        unsigned = [name for name in methods.available() if not methods.spec(name).signed]
        assert unsigned == [
            n for n in methods.available()
            if methods.spec(n).family in ("attention", "random")
            or n in ("saliency", "smooth-grad")
        ]  # fmt: skip
        relative = [name for name in methods.available() if methods.spec(name).relative]
        assert relative == ["saliency", "smooth-grad", "attention", "attention-rollout"]

    @pytest.mark.parametrize(
        ("alias", "name"), [("ig", "integrated-gradients"), ("leave-one-out", "occlusion")]
    )
    def test_an_alias_is_the_method_itself(self, alias: str, name: str) -> None:
        assert methods.spec(alias) is methods.spec(name)
        assert alias not in methods.available()
        assert torch.equal(run(alias, LINEAR), run(name, LINEAR))

    def test_aliases_of_a_users_method(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("captum_aml.methods.registry._REGISTRY", {})
        methods.register(spec_of("first", "one", "uno"))
        assert methods.spec("uno").name == "first"
        for clash, stands_for in [
            (spec_of("second", "one"), "'one'"),
            (spec_of("uno"), "'uno'"),
            (spec_of("second", "first"), "'first'"),
        ]:
            with pytest.raises(InvalidInputError, match=f"called {stands_for}, which stands for"):
                methods.register(clash, replace=True)
        with pytest.raises(InvalidInputError, match="differ, got third, third"):
            methods.register(spec_of("third", "third"))
        with pytest.raises(InvalidInputError, match="got an empty one"):
            methods.register(spec_of("third", ""))
        # Replacing a method takes its aliases away.
        methods.register(spec_of("first", "eins"), replace=True)
        assert methods.spec("eins").name == "first"
        with pytest.raises(InvalidInputError, match="expected one of first, got 'uno'"):
            methods.spec("uno")


def spec_of(name: str, *aliases: str) -> methods.MethodSpec:
    return methods.MethodSpec(name=name, summary="", factory=lambda *_: None, aliases=aliases)
