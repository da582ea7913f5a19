"""Traced: torch.compile, torch.export, ONNX, and fake tensors on another device."""

import importlib.util
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode

from torchnn.check.findings import Findings, is_property
from torchnn.check.nodes import AsksForGradientsError, FakeContext, NoGradients, fake, functions, is_once_differentiable
from torchnn.check.properties.derivatives import detached
from torchnn.check.properties.transforms import asked, scalar_of
from torchnn.check.refusals import IN_ONE, NO_FAKE, NO_OPERATOR, TRACING, first_line, refusal
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    Around,
    Inputs,
    NotApplicable,
    fresh,
    gradients,
    gradients_of,
    is_number,
    mapped,
    outputs_of,
)
from torchnn.check.variants import SHAPES, with_rows
from torchnn.console import ONNX_LOGGERS, quiet

NO_CUDA = "not linked with support for cuda|not compiled with CUDA enabled"  # a build without it, of fake tensors
BACKEND = "aot_eager"  # traces forward and backward as the default backend does, without compiling C++


@contextmanager
def fresh_dynamo() -> Iterator[None]:
    """Without what earlier calls compiled, and without its logs."""
    torch._dynamo.reset()
    counters.clear()
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        torch._dynamo.reset()


@is_property(
    cause="torch.compile cannot trace the call as one graph, or traces something else.",
    mend="No Python branch on values, no numpy; a Function with a jvp needs a twin without it while compiling.",
    is_slow=True,
    needs=("unmutated",),
    refusals=TRACING,
)
def compiled(subject: Subject, findings: Findings) -> None:
    """One graph, with fixed sizes and with sizes that change."""
    with fresh_dynamo():
        for inputs in subject.cases():
            expected_values = outputs_of(subject.call, inputs)
            incoming = subject.incoming(expected_values)
            expected = gradients(subject.call, inputs, incoming)
            call = torch.compile(subject.call, fullgraph=True, backend=BACKEND, dynamic=False)
            leaves = fresh(inputs)
            findings.compare("the value", outputs_of(call, leaves), expected_values, inputs)
            findings.compare("gradient", gradients(call, leaves, incoming), expected, inputs)


@is_property(
    cause="The compiled call keeps a size that it saw first.",
    mend="Take sizes from the tensors at hand, never from ctx or from a constant.",
    is_slow=True,
    needs=("compiled",),
    refusals=TRACING,
)
def compiled_dynamic(subject: Subject, findings: Findings) -> None:
    """The sizes are unknown while tracing; then other numbers of rows go through the same graph."""
    for inputs in subject.cases():
        other = with_rows(subject.reference, inputs, SHAPES["other rows"])
        with fresh_dynamo():
            counter, graphs = CompileCounterWithBackend(BACKEND), []
            call = torch.compile(subject.call, fullgraph=True, backend=counter, dynamic=True)
            for variant in [inputs] if other is None else [inputs, other]:
                expected_values = outputs_of(subject.call, variant)
                incoming = subject.incoming(expected_values)
                expected = gradients(subject.call, variant, incoming)
                leaves = fresh(variant)
                outputs = outputs_of(call, leaves)
                findings.compare("the value", outputs, expected_values, variant)
                findings.compare("gradient", gradients_of(outputs, leaves, incoming), expected, variant)
                graphs.append(counter.frame_count)
            if graphs[-1] > graphs[0]:
                findings.fail("with another number of rows it is compiled again", inputs)


@is_property(
    cause="The graph breaks: parts of the call run in Python.",
    mend="torch._dynamo.explain(call)(*inputs) names the line.",
    is_slow=True,
    needs=("unmutated",),
)
def graph_breaks(subject: Subject, findings: Findings) -> None:
    with fresh_dynamo():
        for inputs in subject.cases():
            counters.clear()
            torch.compile(subject.call, backend="eager")(*fresh(inputs))
            breaks = dict(counters["graph_break"])
            for reason in map(str, breaks):
                if why := refusal(reason, TRACING):
                    raise NotApplicable(why)
                findings.fail(f"the graph breaks: {first_line(reason)}", inputs)
            findings.note(f"{sum(breaks.values())} breaks")


@is_property(
    cause="The compiled form of torch.func.grad gives something else.",
    mend="Let it compile on its own first: see the row compiled.",
    is_slow=True,
    needs=("func_grad", "compiled"),
    refusals=(IN_ONE, *TRACING),
)
def compiled_func_grad(subject: Subject, findings: Findings) -> None:
    with fresh_dynamo():
        for inputs in subject.cases():
            weights = subject.incoming(outputs_of(subject.call, inputs))
            of_gradients = torch.func.grad(scalar_of(subject.call, weights), argnums=asked(inputs))
            expected = of_gradients(*detached(inputs))
            call = torch.compile(of_gradients, fullgraph=True, backend=BACKEND)
            findings.compare("gradient", call(*detached(inputs)), expected, inputs)


@is_property(
    cause="torch.export cannot trace the forward, or traces something else.",
    mend="No Python branch on values; custom operators need register_fake.",
    is_slow=True,
    needs=("unmutated",),
    refusals=TRACING,
)
def exported(subject: Subject, findings: Findings) -> None:
    """The program gives the same values, on these inputs."""
    for inputs in subject.cases():
        plain = tensors_only(inputs)
        with torch.no_grad():
            program = torch.export.export(Around(subject.call), plain)
            given = outputs_of(program.module(), plain)
            findings.compare("the value", given, outputs_of(subject.call, plain), inputs)


@is_property(
    cause="The ONNX file gives something else than the call.",
    mend="Write the forward in torch operations that ONNX has; see the row exported first.",
    is_slow=True,
    needs=("exported",),
    refusals=(NO_OPERATOR, *TRACING),
)
def onnx(subject: Subject, findings: Findings) -> None:
    """In float32, run by onnxruntime."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotApplicable(f"{' and '.join(missing)} is not installed")
    import onnxruntime

    for inputs in subject.cases(torch.float32):
        plain = tensors_only(inputs)
        if any(t.is_complex() for t in plain):
            raise NotApplicable("onnxruntime takes no complex numbers")
        with torch.no_grad(), quiet(*ONNX_LOGGERS), tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/call.onnx"
            torch.onnx.export(Around(subject.call), plain, path, dynamo=True, verbose=False)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            expected = outputs_of(subject.call, plain)
        names = [given.name for given in session.get_inputs()]
        results = session.run(None, dict(zip(names, (t.cpu().numpy() for t in plain), strict=False)))
        given = [t for t in map(torch.from_numpy, results) if is_number(t)]
        findings.compare_rounded(
            "the value", given, [t.cpu() for t in expected], [t.cpu().double() for t in expected], torch.float32, inputs
        )


def tensors_only(inputs: Inputs) -> tuple[Tensor, ...]:
    if not all(isinstance(t, Tensor) for t in inputs):
        raise NotApplicable("an argument is no tensor")
    return detached(inputs)


@is_property(
    cause="A tensor is made on the wrong device, or the call looks at the values of its inputs.",
    mend="Make tensors from those at hand (zeros_like, or device=grad_output.device), and branch on no value.",
    needs=("unmutated", "saved_tensors"),
    refusals=(NO_FAKE,),
)
def fake_tensors(subject: Subject, findings: Findings) -> None:
    """Tensors without numbers: on the meta device with gradients, on a fake CUDA device forward and backward."""
    for inputs in subject.cases():
        expected = outputs_of(subject.call, inputs)
        somewhere = mapped(inputs, lambda t: t.to("meta"), of=lambda t: isinstance(t, Tensor))
        outputs = outputs_of(subject.call, somewhere)
        check_device(findings, inputs, "meta", outputs, expected)
        grads = gradients(subject.call, somewhere, [torch.empty_like(t) for t in outputs])
        wanted = [t for t in inputs if isinstance(t, Tensor) and t.requires_grad]
        check_device(findings, inputs, "meta", grads, wanted, "gradient")

        contexts = [FakeContext(node) for node in functions(expected) if not is_once_differentiable(node)]
        try:
            with (
                FakeTensorMode(allow_non_fake_inputs=True),
                torch.no_grad(),
                NoGradients(),
            ):  # constants of the call are real
                on_cuda = tuple(fake(t) if isinstance(t, Tensor) else t for t in inputs)
                check_device(findings, inputs, "cuda", outputs_of(subject.call, on_cuda), expected)
                for ctx in contexts:
                    grads = ctx.gradients()
                    check_device(findings, inputs, "cuda", grads, grads, "gradient")
        except AsksForGradientsError:
            findings.note("it asks for gradients itself: tried on meta only")
        except (RuntimeError, AssertionError) as error:
            if not re.search(NO_CUDA, str(error)):
                raise
            findings.note("an operation asks this build of torch for CUDA, which it lacks: tried on meta only")


def check_device(
    findings: Findings,
    inputs: Inputs,
    device: str,
    given: Sequence[Tensor],
    like: Sequence[Tensor],
    what: str = "output",
) -> None:
    for position, (t, expected) in enumerate(zip(given, like, strict=True), 1):
        if t.device.type != device:
            findings.fail(f"with inputs on {device}, {what} {position} is on {t.device.type}", inputs)
        elif t.shape != expected.shape:
            findings.fail(f"on {device}, {what} {position} has shape {tuple(t.shape)}", inputs)
