"""Instrumenting a model: what is counted, and that nothing else about the model changes."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

import flopcuda
from flopcuda import virtual_cuda
from tests.conftest import SmallNet


def fingerprint(model: nn.Module) -> dict[str, object]:
    """All that must be as before: objects, classes, modes, attributes and tensors."""
    modules = {
        name: (id(module), type(module), module.training, set(module.__dict__))
        for name, module in model.named_modules(remove_duplicate=False)
    }
    tensors = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {"modules": modules, "tensors": tensors}


def assert_unchanged(model: nn.Module, before: dict[str, object]) -> None:
    after = fingerprint(model)
    assert after["modules"] == before["modules"]
    assert after["tensors"].keys() == before["tensors"].keys()
    for name, (pointer, tensor) in before["tensors"].items():
        assert after["tensors"][name][0] == pointer
        torch.testing.assert_close(after["tensors"][name][1], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_outputs_are_those_of_the_original(model: SmallNet, images: Tensor, training: bool, mode: type) -> None:
    model.train(training)
    twin = copy.deepcopy(model)
    with mode(), flopcuda.instrument(model):
        output = model(images)
    with mode():
        torch.testing.assert_close(output, twin(images))
    torch.testing.assert_close(model.norm.running_mean, twin.norm.running_mean)


def test_counts_are_the_exact_formula(model: SmallNet, images: Tensor) -> None:
    with flopcuda.instrument(model) as session:
        model(images)
    report = session.report()
    pixels = 9 * 8
    stem, shared, head = 2 * 8 * pixels * 27, 2 * 2 * 8 * pixels * 36, 2 * 5 * 8
    modules = report.by_module()
    assert {name: summary.macs for name, summary in modules.items()} == {"stem": stem, "shared": shared, "head": head}
    assert modules["stem"].add == 2 * 8 * pixels * 26
    assert modules["shared"].add == shared
    assert report.total.macs == stem + shared + head
    assert report.total.flops == report.total.mul + report.total.add
    assert report.by_operator()["conv2d"].mul == stem + shared
    assert report.total.lane >= report.total.mul
    assert report.total.zero is None


def test_each_launch_has_its_record(model: SmallNet, images: Tensor) -> None:
    with flopcuda.instrument(model) as session:
        model(images)
        model(images)
    launches = session.report().launches
    assert [launch.module for launch in launches] == ["stem", "shared", "shared", "head"] * 2
    first = launches[0]
    assert (first.op, first.module_type, first.dtype, first.device) == ("conv2d", "Conv2d", "float32", "cpu")
    assert first.input_shape == (2, 3, 17, 15)
    assert first.weight_shape == (8, 3, 3, 3)
    assert first.output_shape == (2, 8, 9, 8)
    assert first.options == {
        "bias": False, "stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1
    }  # fmt: skip
    assert first.kernel
    assert first.seconds is not None
    assert first.seconds > 0
    assert first.flops_per_second == pytest.approx(first.counters.flops / first.seconds)


def test_zero_products_are_counted_on_request() -> None:
    layer = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        layer.weight[0] = 0
    input = torch.ones(2, 4)
    input[1, 2] = 0
    with flopcuda.instrument(layer, count_zero=True) as session:
        layer(input)
    assert session.report().total.zero == 2 * 4 + 2


def test_nothing_about_the_model_changes(model: SmallNet, images: Tensor) -> None:
    calls: list[str] = []
    model.stem.register_forward_hook(lambda *_: calls.append("hook"))
    model.eval()
    before = fingerprint(model)
    keys = list(model.state_dict())
    with flopcuda.instrument(model) as session:
        assert isinstance(model.stem, nn.Conv2d)
        assert isinstance(model.head, nn.Linear)
        assert list(model.state_dict()) == keys
        assert model.alias is model.shared
        assert "Conv2d(3, 8, kernel_size=(3, 3)" in repr(model)
        model(images)
    assert calls == ["hook"]
    assert_unchanged(model, before)
    model(images)
    assert len(session.report().launches) == 4


def test_restored_also_after_an_exception_inside_the_model(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = model.head.register_forward_pre_hook(fail)
    model.eval()
    with pytest.raises(ZeroDivisionError), flopcuda.instrument(model) as session:
        model(images)
    handle.remove()
    model.train()
    assert_unchanged(model, before)
    assert [launch.module for launch in session.report().launches] == ["stem", "shared", "shared"]


def test_restore_by_hand_and_twice(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model)
    session = flopcuda.instrument(model)
    session.restore()
    session.restore()
    assert_unchanged(model, before)
    with flopcuda.instrument(model):
        pass
    assert_unchanged(model, before)


def test_reset_forgets_what_was_counted(model: SmallNet, images: Tensor) -> None:
    with flopcuda.instrument(model) as session:
        model(images)
        session.reset()
        assert session.report().launches == ()
        model(images)
    assert len(session.report().launches) == 4


@pytest.mark.parametrize("part", ["", "shared"])
def test_instrumenting_twice_is_one_clear_error(model: SmallNet, part: str) -> None:
    with flopcuda.instrument(model) as session:
        with pytest.raises(RuntimeError, match=r"\(Conv2d\) is instrumented already"):
            flopcuda.instrument(model.get_submodule(part))
        assert session.report().total.macs == 0
    assert type(model.shared) is nn.Conv2d


def test_a_failed_instrumentation_leaves_the_model_alone(model: SmallNet) -> None:
    model.tail = nn.LazyLinear(3)
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(ValueError, match=r"tail \(LazyLinear\) is lazy"):
        flopcuda.instrument(model)
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_a_scripted_module_is_refused() -> None:
    with pytest.raises(TypeError, match="scripted"):
        flopcuda.instrument(torch.jit.script(nn.Linear(2, 2)))


def test_something_else_than_a_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module, got function"):
        flopcuda.instrument(lambda x: x)  # type: ignore[arg-type]


def test_errors_name_the_module_and_leave_the_model(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model.eval())
    with flopcuda.instrument(model):
        with pytest.raises(RuntimeError, match=r"^stem \(Conv2d\): conv2d: input has 4 channels"):
            model(torch.randn(2, 4, 9, 9))
        with pytest.raises(
            RuntimeError, match=r"^stem \(Conv2d\): conv2d: weight is of torch.float32, but input is of"
        ):
            model(images.double())
        with pytest.raises(TypeError, match=r"^stem \(Conv2d\): conv2d: input is of torch.int64"):
            model(images.long())
        with pytest.raises(TypeError, match=r"^stem \(Conv2d\): input must be a Tensor, not list"):
            model([1, 2])
    assert_unchanged(model, before)


def test_training_goes_on_while_counting(model: SmallNet, images: Tensor) -> None:
    twin = copy.deepcopy(model)
    with flopcuda.instrument(model):
        model(images).square().sum().backward()
    twin(images).square().sum().backward()
    for (name, parameter), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, msg=name)


def test_a_copy_or_pickle_of_an_instrumented_model_is_the_original_one(model: SmallNet, images: Tensor) -> None:
    model.eval()
    with flopcuda.instrument(model) as session:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        clone = copy.deepcopy(model)
    buffer.seek(0)
    for copied in (clone, torch.load(buffer, weights_only=False)):
        assert type(copied.stem) is nn.Conv2d
        torch.testing.assert_close(copied(images), model(images))
    assert session.report().launches == ()


def test_a_compiled_model_counts_as_in_eager_mode(model: SmallNet, images: Tensor) -> None:
    model.eval()
    with flopcuda.instrument(model) as session, torch.no_grad():
        expected = model(images)
        eager = session.report().total.counters
        session.reset()
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):  # the second call takes what the first compiled
            torch.testing.assert_close(compiled(images), expected)
            assert session.report().total.counters == eager
            session.reset()


class Standardised(nn.Conv2d):
    """A user's layer that changes its weight and lets torch's class do the rest."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean(), bias)


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("layer", "shape"), [(Standardised(3, 4, 3), (2, 3, 6, 6)), (Doubled(3, 4), (2, 3))], ids=["conv", "linear"]
)
def test_subclasses_keep_their_own_code_and_are_counted(layer: nn.Module, shape: tuple[int, ...]) -> None:
    input = torch.randn(shape)
    expected = layer(input)
    with flopcuda.instrument(layer) as session:
        torch.testing.assert_close(layer(input), expected)
    assert session.report().launches[0].module_type == type(layer).__name__


def test_parametrised_layers_are_counted() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    input = torch.randn(2, 3)
    expected = layer(input)
    with flopcuda.instrument(layer) as session:
        torch.testing.assert_close(layer(input), expected)
    assert session.report().total.macs == 2 * 3 * 4


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, 2, (1, 2), "same", "valid"])
def test_every_kind_of_padding(padding: int | tuple[int, int] | str, padding_mode: str) -> None:
    layer = nn.Conv2d(3, 4, (2, 3), padding=padding, dilation=(1, 2), padding_mode=padding_mode)
    input = torch.randn(2, 3, 8, 7)
    with flopcuda.instrument(layer) as session:
        output = layer(input)
    torch.testing.assert_close(output, layer(input))
    total = session.report().total
    assert total.mul == output.numel() * 3 * 2 * 3
    assert (total.pad > 0) == (padding_mode == "zeros" and padding not in (0, "valid"))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_every_kind_of_padding_under_autocast(padding_mode: str) -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode)
    input = torch.randn(2, 3, 8, 7)
    with torch.autocast("cpu", torch.bfloat16):
        with flopcuda.instrument(layer) as session:
            output = layer(input)
        torch.testing.assert_close(output, layer(input))
    assert {launch.dtype for launch in session.report().launches} == {"bfloat16"}


def test_a_layer_whose_geometry_was_changed_to_lists() -> None:
    layer = nn.Conv2d(3, 4, 3)
    layer.padding, layer.dilation = [1, 2], [1, 1]  # type: ignore[assignment]
    input = torch.randn(2, 3, 8, 7)
    with flopcuda.instrument(layer):
        output = layer(input)
    torch.testing.assert_close(output, layer(input))


def test_products_of_hooks_that_pack_saved_tensors_are_captured() -> None:
    layer, identity = nn.Linear(4, 4), torch.eye(4)
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor @ identity, lambda tensor: tensor)
    with flopcuda.instrument(layer) as session, hooks:
        layer(torch.randn(2, 4))
    assert sorted(launch.output_shape for launch in session.report().launches) == [(1, 2, 4), (1, 4, 4), (2, 4)]


def test_an_empty_batch_counts_nothing(model: SmallNet) -> None:
    model.eval()
    with flopcuda.instrument(model) as session:
        assert model(torch.randn(0, 3, 9, 9)).shape == (0, 5)
    assert session.report().total.flops == 0


def test_meta_tensors_give_shapes_and_count_nothing(model: SmallNet) -> None:
    model.to("meta")
    with flopcuda.instrument(model) as session:
        assert model(torch.randn(2, 3, 9, 9, device="meta")).shape == (2, 5)
    assert session.report().launches == ()


@pytest.mark.gpu
def test_a_gpu_counts_as_the_cpu_does(model: SmallNet, images: Tensor) -> None:
    model.eval()
    with flopcuda.instrument(model, count_zero=True) as session:
        expected = model(images)
    on_cpu = session.report()
    with flopcuda.instrument(model.cuda(), count_zero=True) as session:
        torch.testing.assert_close(model(images.cuda()).cpu(), expected, rtol=1e-4, atol=1e-5)
    on_gpu = session.report()
    for cpu, gpu in zip(on_cpu.launches, on_gpu.launches, strict=True):
        assert (cpu.counters.mul, cpu.counters.add, cpu.counters.pad) == (
            gpu.counters.mul, gpu.counters.add, gpu.counters.pad
        )  # fmt: skip
        assert gpu.kernel.startswith("flopcuda_")
        assert 0 < gpu.wave_efficiency <= 1
        assert (gpu.seconds is None) == virtual_cuda.is_active()


@pytest.mark.gpu
def test_launches_follow_torchs_current_stream(model: SmallNet, images: Tensor) -> None:
    model.eval().cuda()
    expected = model(images.cuda())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), flopcuda.instrument(model) as session:
        output = model(images.cuda())
    stream.synchronize()
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    assert session.report().total.macs > 0
