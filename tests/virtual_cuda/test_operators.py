"""torch's operators on the virtual device: the CPU's results, on the device and with torch's own rules around them."""

from __future__ import annotations

import copy
import io
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from flopcuda.virtual_cuda import capture
from tests.cuda_graphs import captured

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("_on_the_virtual_device")]

Operator = Callable[[Tensor], Tensor]


def on_device(tensor: Tensor) -> Tensor:
    return tensor.to("cuda")


OPERATORS: dict[str, Operator] = {
    "unary": lambda x: x.relu(),
    "binary": lambda x: x + 2 * x,
    "type promotion with a number": lambda x: x.int() * 2.5,
    "comparison": lambda x: x > 0,
    "reduction": lambda x: x.sum(0),
    "matrix product": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "in-place": lambda x: x.clone().add_(1).mul_(2),
    "in-place through a view": lambda x: _with(x.clone(), lambda y: y[1:3].zero_()),
    "in-place with a step": lambda x: _with(x.clone(), lambda y: y[::2, ::3].fill_(7)),
    "transposed to contiguous": lambda x: x.t().contiguous(),
    "strides of the result": lambda x: x.t() + 1,
    "expanded": lambda x: x[:, :1].expand(-1, 5) * 2,
    "concatenation": lambda x: torch.cat([x, x.flip(0)]),
    "indexing": lambda x: x[torch.tensor([0, 2], device=x.device)],
    "indexing by the CPU": lambda x: x[torch.tensor([0, 2])],
    "assignment by index": lambda x: _with(x.clone(), lambda y: y.__setitem__(torch.tensor([0, 2]), 1.0)),
    "masked selection": lambda x: x[x > 0],
    "nonzero": lambda x: (x > 0).nonzero(),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add_(0, (x > 0).long(), x),
    "where with a CPU number": lambda x: torch.where(x > 0, x, torch.tensor(-1.0)),
    "sort": lambda x: x.sort(1, descending=True).values,
    "topk": lambda x: x.topk(2).indices,
    "unique": lambda x: x.round().unique(),
    "cumsum": lambda x: x.cumsum(0),
    "softmax": lambda x: x.softmax(-1),
    "half precision": lambda x: (x.half() * 3).float(),
    "bfloat16": lambda x: x.bfloat16().float(),
    "complex": lambda x: (x * 1j).conj() @ (x * (1 + 1j)).mT,
    "conjugate bit": lambda x: torch.view_as_real(torch.complex(x, x).conj().resolve_conj()),
    "negative bit": lambda x: torch.complex(x, x).conj().imag + 1,
    "fft": lambda x: torch.fft.rfft(x).abs(),
    "singular values": lambda x: torch.linalg.svdvals(x),
    "solve": lambda x: torch.linalg.solve(x @ x.mT + torch.eye(len(x), device=x.device), x),
    "foreach": lambda x: torch.stack(torch._foreach_add(torch._foreach_mul([x, x], 2), 1)),
    "convolution": lambda x: F.conv2d(x[None, None], x[None, None, :3, :3], stride=2, padding=1),
    "depthwise convolution": lambda x: F.conv2d(x[None, None].repeat(1, 3, 1, 1), x[:3, None, None, :3], groups=3),
    "transposed convolution": lambda x: F.conv_transpose2d(x[None, None], x[None, None, :3, :3]),
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "pooling": lambda x: F.max_pool2d(x[None], 2),
    "interpolation": lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
    "embedding": lambda x: F.embedding(torch.tensor([1, 2], device=x.device), x),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "one-hot": lambda x: F.one_hot((x > 0).long()),
    "padding": lambda x: F.pad(x[None], (1, 2), mode="reflect"),
    "factory": lambda x: torch.arange(5, device=x.device) + torch.linspace(0, 1, 5, device=x.device),
    "triangle": lambda x: torch.tril_indices(3, 3, device=x.device),
    "new tensor": lambda x: x.new_full((2, 2), 3),
    "to the other dtype and back": lambda x: x.double().to(torch.float32, memory_format=torch.contiguous_format),
    "rms norm": lambda x: F.rms_norm(x, x.shape[1:]),
    "product in a wider type": lambda x: torch.mm(x.half(), x.half().mT).float(),
}


def _with(tensor: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    change(tensor)
    return tensor


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_gives_what_the_cpu_gives(name: str) -> None:
    input = torch.randn(6, 7)
    expected = OPERATORS[name](input)
    result = OPERATORS[name](on_device(input))
    assert result.device == torch.device("cuda:0")
    assert (result.dtype, result.shape, result.stride()) == (expected.dtype, expected.shape, expected.stride())
    torch.testing.assert_close(result.cpu(), expected)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 7)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.GELU(), nn.Flatten(), nn.Linear(20, 3)
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Unflatten(1, (7, 1, 1)), nn.Conv2d(7, 14, 3, padding=1, groups=7), nn.Flatten(), nn.Linear(14, 3)
    ),
    "transformer": lambda: nn.Sequential(
        nn.Linear(7, 8), nn.TransformerEncoderLayer(8, 2, 16, dropout=0), nn.RMSNorm(8), nn.Linear(8, 3)
    ),
    "lstm": lambda: Last(nn.LSTM(7, 3, num_layers=2, bidirectional=True), 6, 3),
    "lstm without bias": lambda: Last(nn.LSTM(7, 3, bias=False), 3, 3),
    "gru": lambda: Last(nn.GRU(7, 3, num_layers=2), 3, 3),
    "gru without bias": lambda: Last(nn.GRU(7, 3, bias=False), 3, 3),
}
OPTIMISERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, 0.1),
    "fused AdamW": lambda p: torch.optim.AdamW(p, 0.1, fused=True),
    "capturable Adam": lambda p: torch.optim.Adam(p, 0.1, capturable=p[0].is_cuda),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, foreach=True),
}


class Last(nn.Module):
    """A recurrent layer and a linear one over its last output."""

    def __init__(self, recurrent: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x[:, None])[0][:, 0])


def train(model: nn.Module, optimiser: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> Tensor:
    for _ in range(3):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimiser.step()
    return loss


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_as_on_the_cpu(name: str) -> None:
    model = MODELS[name]()
    twin = copy.deepcopy(model).cuda()
    inputs, labels = torch.randn(6, 7), torch.randint(0, 3, (6,))
    expected = train(model, OPTIMISERS["SGD"](list(model.parameters())), inputs, labels)
    loss = train(twin, OPTIMISERS["SGD"](list(twin.parameters())), on_device(inputs), on_device(labels))
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-4, atol=1e-5)
    for (key, parameter), trained in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(trained.cpu(), parameter, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_steps_as_on_the_cpu(name: str) -> None:
    model = nn.Linear(7, 3)
    twin = copy.deepcopy(model).cuda()
    inputs, labels = torch.randn(6, 7), torch.randint(0, 3, (6,))
    train(model, OPTIMISERS[name](list(model.parameters())), inputs, labels)
    train(twin, OPTIMISERS[name](list(twin.parameters())), on_device(inputs), on_device(labels))
    torch.testing.assert_close(twin.weight.cpu(), model.weight, rtol=1e-4, atol=1e-5)


def test_second_derivatives() -> None:
    x = torch.randn(3, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda y: (y @ y).tanh().sum(), x)


def test_mixed_precision_training() -> None:
    model = nn.Linear(4, 4).cuda()
    before = model.weight.detach().clone()
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    with torch.autocast("cuda", dtype=torch.float16):
        output = model(torch.randn(2, 4, device="cuda"))
        assert output.dtype == torch.float16
    scaler.scale(output.float().sum()).backward()
    gradient = model.weight.grad.clone()
    scaler.step(optimiser)
    scaler.update()
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * gradient / 4)


def test_an_overflow_makes_the_gradient_scaler_skip_the_step() -> None:
    parameter = nn.Parameter(torch.ones(2, device="cuda"))
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    scaler.scale((parameter * torch.tensor([1.0, torch.inf], device="cuda")).sum()).backward()
    scaler.step(torch.optim.SGD([parameter], 0.1))
    scaler.update()
    assert parameter.tolist() == [1, 1]
    assert scaler.get_scale() == 2


def test_autocast_of_the_cpu_does_not_reach_the_device() -> None:
    x = torch.ones(2, 2, device="cuda")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.float32
        assert (x.cpu() @ x.cpu()).dtype == torch.bfloat16


RANDOM: dict[str, Callable[[], Tensor]] = {
    "uniform": lambda: torch.rand(50, device="cuda"),
    "normal": lambda: torch.randn(50, device="cuda"),
    "integers": lambda: torch.randint(1000, (50,), device="cuda"),
    "permutation": lambda: torch.randperm(50, device="cuda"),
    "in-place": lambda: torch.empty(50, device="cuda").exponential_(),
    "dropout": lambda: F.dropout(torch.arange(50.0, device="cuda")),
    "rrelu": lambda: F.rrelu(-torch.ones(50, device="cuda"), training=True),
    "multinomial": lambda: torch.ones(50, device="cuda").multinomial(20),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_follow_the_cuda_generator(name: str) -> None:
    draw = RANDOM[name]
    torch.cuda.manual_seed(5)
    of_the_cpu = torch.get_rng_state()
    first = draw()
    state = torch.cuda.get_rng_state()
    second = draw()
    assert not torch.equal(first, second)
    torch.cuda.set_rng_state(state)
    assert torch.equal(draw(), second)
    torch.manual_seed(5)
    assert torch.equal(draw(), first)
    torch.cuda.manual_seed(6)
    assert not torch.equal(draw(), first)
    torch.manual_seed(5)
    torch.set_rng_state(of_the_cpu)
    draw()
    assert torch.equal(torch.get_rng_state(), of_the_cpu)


def test_a_generator_of_ones_own() -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    drawn = torch.rand(4, device="cuda", generator=generator)
    assert not torch.equal(torch.rand(4, device="cuda", generator=generator), drawn)
    assert torch.equal(torch.rand(4, device="cuda", generator=generator.manual_seed(1)), drawn)
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        torch.rand(4, device="cuda", generator=torch.Generator())


def test_random_numbers_are_distributed_as_they_should() -> None:
    drawn = torch.randn(20000, device="cuda")
    assert abs(drawn.mean().item()) < 0.05
    assert abs(drawn.std().item() - 1) < 0.05
    assert abs(torch.rand(20000, device="cuda").mean().item() - 0.5) < 0.02


def test_out_arguments() -> None:
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    empty = torch.empty(0, device="cuda")
    assert torch.add(x, 1, out=empty) is empty
    assert empty.tolist() == (x.cpu() + 1).tolist()
    strided = torch.empty(3, 2, device="cuda").t()
    torch.add(x, 1, out=strided)
    assert strided.stride() == (1, 2)
    assert strided.tolist() == (x.cpu() + 1).tolist()
    with pytest.warns(UserWarning, match="An output with one or more elements was resized"):
        torch.add(x, 1, out=(small := torch.empty(2, device="cuda")))
    assert small.tolist() == (x.cpu() + 1).tolist()
    torch.add(x, x, out=x)
    assert x.flatten().tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(RuntimeError, match="can't be cast"):
        torch.add(x, 0.5, out=torch.empty(2, 3, dtype=torch.int64, device="cuda"))


def test_nothing_moves_in_memory() -> None:
    x = torch.zeros(4, 4, device="cuda")
    place, view = x.data_ptr(), x.t()[1:]
    x.add_(1)
    view.mul_(3)
    assert x.data_ptr() == place
    assert x.sum(1).tolist() == [10, 10, 10, 10]
    assert view.is_set_to(x.t()[1:])


def test_overlapping_memory_is_refused() -> None:
    x = torch.zeros(4, device="cuda")
    with pytest.raises(RuntimeError, match="single memory location"):
        x[1:].add_(x[:-1])


MIXED: dict[str, Callable[[Tensor], object]] = {
    "binary": lambda x: x + x.cpu(),
    "in-place": lambda x: x.add_(x.cpu()),
    "of a number on the device": lambda x: x.sum() + x.cpu(),
    "matrix product": lambda x: x.cpu() @ x,
    "list": lambda x: torch.cat([x, x.cpu()]),
    "index on the device": lambda x: x.cpu()[torch.tensor([0], device="cuda")],
    "indexed assignment": lambda x: x.index_put_((torch.tensor([1]),), torch.ones(1, 2)),
    "convolution": lambda x: F.conv2d(x[None, None], torch.ones(1, 1, 1, 1)),
    "out": lambda x: torch.add(x, 1, out=torch.empty(2, 2)),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_cpu_and_device_do_not_mix(name: str) -> None:
    with pytest.raises(
        RuntimeError, match=r"Expected all tensors to be on the same device.*(cuda:0 and cpu|cpu and cuda:0)"
    ):
        MIXED[name](torch.ones(2, 2, device="cuda"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_tensors_of_two_devices_do_not_mix() -> None:
    x, y = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")
    with pytest.raises(RuntimeError, match=r"same device.*cuda:0 and cuda:1"):
        x + y
    assert (x.to("cuda:1") + y).tolist() == [2, 2]
    assert (torch.ones(2, 3, device="cuda:0").t().to("cuda:1") + 1).device == y.device
    with torch.cuda.device(1):
        assert torch.rand(2, device="cuda").device == y.device
    torch.manual_seed(3)
    assert not torch.equal(torch.rand(4, device="cuda:0").cpu(), torch.rand(5, device="cuda:1")[1:].cpu())


def test_an_operator_without_cpu_kernel_is_one_error_that_names_it() -> None:
    x = torch.ones(1, 1, 8, 8, device="cuda", dtype=torch.float16)
    with pytest.raises(NotImplementedError, match=r"aten\._flash_attention_forward.*virtual CUDA device"):
        torch.ops.aten._flash_attention_forward(x, x, x, None, None, 8, 8, 0.0, False, False)


NEEDS_NVIDIAS_LIBRARIES: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "cuBLAS": (lambda x: torch.cuda.current_blas_handle(), "CUBLAS_STATUS_NOT_INITIALIZED"),
    "cuDNN": (
        lambda x: torch.ops.aten.cudnn_convolution(x, x, [0, 0], [1, 1], [1, 1], 1, False, False, False),
        r"aten\.cudnn_convolution.*virtual CUDA device",
    ),
    "cuSPARSE": (lambda x: torch.sparse.mm(x[0, 0].to_sparse(), x[0, 0]), "cusparseCreate"),
    "NCCL": (lambda x: torch.cuda.nccl.all_reduce([x]), "NCCL Error"),
    "NVRTC": (
        lambda x: torch.cuda.jiterator._create_jit_fn("template <typename T> T f(T x) { return x; }")(x),
        "no kernel image is available",
    ),
}


@pytest.mark.parametrize("library", NEEDS_NVIDIAS_LIBRARIES)
def test_what_needs_nvidias_libraries_is_torchs_error(library: str) -> None:
    call, message = NEEDS_NVIDIAS_LIBRARIES[library]
    x = torch.ones(1, 1, 4, 4, device="cuda")
    with pytest.raises(RuntimeError, match=message):
        call(x)
    assert x.sum().item() == 16  # The device is none the worse for it.


def test_printing_and_reading() -> None:
    x = torch.tensor([[1.5, -2.0]], device="cuda")
    assert repr(x) == "tensor([[ 1.5000, -2.0000]], device='cuda:0')"
    assert x[0, 1].item() == -2
    assert x.tolist() == [[1.5, -2]]
    assert bool((x == x).all())
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()


def test_saving_and_loading() -> None:
    stored = io.BytesIO()
    torch.save({"x": torch.arange(3, device="cuda")}, stored)
    stored.seek(0)
    assert torch.load(stored)["x"].device == torch.device("cuda:0")
    stored.seek(0)
    assert torch.equal(torch.load(stored, map_location="cpu")["x"], torch.arange(3))


def test_sharing_by_dlpack() -> None:
    x = torch.ones(2, device="cuda")
    shared = torch.from_dlpack(x)
    shared.add_(1)
    assert x.tolist() == [2, 2]


def test_a_data_loader_with_pinned_memory() -> None:
    data = TensorDataset(torch.arange(10.0))
    total = torch.zeros((), device="cuda")
    for (batch,) in DataLoader(data, batch_size=4, pin_memory=True, num_workers=1):
        assert batch.is_pinned()
        total += batch.to("cuda", non_blocking=True).sum()
    assert total.item() == 45


def test_a_default_device() -> None:
    torch.set_default_device("cuda")
    try:
        assert (torch.ones(2) + torch.arange(2)).device == torch.device("cuda:0")
    finally:
        torch.set_default_device(None)


def test_compiled_code_without_a_compiler() -> None:
    compiled = torch.compile(lambda x: x.relu() * 2, backend="aot_eager")
    assert compiled(torch.tensor([-1.0, 1.0], device="cuda")).tolist() == [0, 2]


def test_flop_counting_sees_the_operators() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.ones(2, 3, device="cuda") @ torch.ones(3, 4, device="cuda")
    assert counter.get_total_flops() == 2 * 2 * 3 * 4


def test_memory_is_accounted_for() -> None:
    before, (free, total) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
    x = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_allocated() == before + (1 << 20)
    assert torch.cuda.mem_get_info() == (free - (1 << 20), total)
    del x
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.mem_get_info() == (free, total)


CAPTURABLE: dict[str, Operator] = {
    "elementwise": lambda x: x.relu() + 1,
    "in-place": lambda x: x.clone().mul_(2),
    "reduction over a view": lambda x: x[1:].sum(0),
    "out": lambda x: torch.add(x, 1, out=torch.empty_like(x)),
    "matrix product": lambda x: x @ x.mT,
    "convolution": lambda x: F.conv2d(x[None, None], x[None, None, :2, :2]),
    "foreach": lambda x: torch.stack(torch._foreach_mul([x, x], 2)),
}


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_graph_computes_anew_at_each_replay(name: str) -> None:
    operator = CAPTURABLE[name]
    x = torch.zeros(4, 4, device="cuda")
    with captured() as graph:
        y = operator(x)
    for _ in range(2):
        input = torch.randn(4, 4)
        x.copy_(input)
        graph.replay()
        torch.testing.assert_close(y.cpu(), operator(input))


def test_a_graph_keeps_what_it_calls_until_its_end() -> None:
    class Work:
        calls = 0

        def __call__(self) -> None:
            self.calls += 1

    work = Work()
    alive = weakref.ref(work)
    with captured() as graph:
        capture.record(work, torch.cuda.current_stream())
    del work
    graph.replay()
    graph.replay()
    assert alive().calls == 2
    graph.reset()
    assert alive() is None


def test_a_graph_draws_other_random_numbers_at_each_replay() -> None:
    torch.cuda.manual_seed(7)
    with captured() as graph:
        x = torch.rand(4, device="cuda")
    graph.replay()
    first = x.clone()
    graph.replay()
    assert not torch.equal(x, first)


def test_sizes_that_depend_on_values_can_not_be_captured() -> None:
    x = torch.ones(3, device="cuda")
    with (
        pytest.raises(RuntimeError, match=r"aten\.nonzero.* can't be captured"),
        captured(),
    ):
        x.nonzero()


def test_training_in_a_graph() -> None:
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model).cuda()
    inputs = torch.randn(4, 3)
    static = on_device(inputs)
    optimiser = torch.optim.SGD(twin.parameters(), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with captured() as graph:
            twin(static).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=False)
    graph.replay()
    graph.replay()
    reference = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        model(inputs).square().sum().backward()
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(twin.weight.cpu(), model.weight)
