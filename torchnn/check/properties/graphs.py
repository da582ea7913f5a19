"""Tracing: torch.compile, torch.export, ONNX, and fake tensors on other devices."""

import importlib.util
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from torchnn import _torch
from torchnn.check.autograd_functions import (
    AsksForGradientsError,
    FakeContext,
    ForbidRequiresGrad,
    fake,
    function_nodes,
    is_once_differentiable,
)
from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Call,
    CallModule,
    Inputs,
    NotApplicable,
    detached,
    gradients,
    gradients_of,
    is_floating,
    map_tensors,
    new_leaves,
    outputs_of,
    positions_requiring_grad,
    requiring_grad,
)
from torchnn.check.input_variants import two_rows_more, with_rows
from torchnn.check.properties.transforms import scalar_of
from torchnn.check.refusals import COMBINED_FORWARD, NO_FAKE, NO_OPERATOR, TRACING, error_line, refusal
from torchnn.check.subject import Subject
from torchnn.console import ONNX_LOGGERS, quiet

NO_CUDA = "not linked with support for cuda|not compiled with CUDA enabled"  # from fake tensors, if torch lacks CUDA
BACKEND = "aot_eager"  # traces forward and backward as the default backend does, without compiling C++


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Forget what was compiled before and afterwards, and silence the compiler's log."""
    torch.compiler.reset()
    logger = logging.getLogger(_torch.DYNAMO_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        torch.compiler.reset()


@is_property(
    cause="torch.compile cannot trace the call as one graph, or the graph computes something else.",
    fix="Do not branch on values or use numpy, and compute the same formula while tracing.",
    is_slow=True,
    needs=("unmutated",),
    refusals=TRACING,
)
def compiled(subject: Subject, findings: Findings) -> None:
    """torch.compile makes one graph, and it gives the same values and gradients."""
    with fresh_compiler():
        for inputs in subject.cases():
            expected_values = outputs_of(subject.call, inputs)
            grad_outputs = subject.grad_outputs(expected_values)
            expected = gradients(subject.call, inputs, grad_outputs)
            call = torch.compile(subject.call, fullgraph=True, backend=BACKEND, dynamic=False)
            leaves = new_leaves(inputs)
            findings.compare("value", outputs_of(call, leaves), expected_values, inputs, "compiled")
            findings.compare("gradient", gradients(call, leaves, grad_outputs), expected, inputs, "compiled")


@is_property(
    cause="The compiled call keeps the size that it was traced with.",
    fix="Take sizes from the tensors in each call, not from ctx or a constant, and do not branch on them.",
    is_slow=True,
    needs=("compiled",),
    refusals=TRACING,
)
def compiled_dynamic(subject: Subject, findings: Findings) -> None:
    """Traced with unknown sizes, the same graph works for another number of rows."""
    when = "compiled for dynamic sizes"
    for inputs in subject.cases():
        other = with_rows(subject.reference, inputs, two_rows_more)
        with fresh_compiler():
            call = torch.compile(subject.call, fullgraph=True, backend=BACKEND, dynamic=True)
            for variant in [inputs] if other is None else [inputs, other]:
                expected_values = outputs_of(subject.call, variant)
                grad_outputs = subject.grad_outputs(expected_values)
                expected = gradients(subject.call, variant, grad_outputs)
                leaves = new_leaves(variant)
                if variant is other and is_compiled_again(call, leaves):
                    findings.fail("torch compiles it again when the number of rows changes", inputs)
                outputs = outputs_of(call, leaves)
                findings.compare("value", outputs, expected_values, variant, when)
                findings.compare("gradient", gradients_of(outputs, leaves, grad_outputs), expected, variant, when)


def is_compiled_again(call: Call, inputs: Inputs) -> bool:
    """Whether a compiled call has no graph that fits these inputs."""
    try:
        with torch.compiler.set_stance("fail_on_recompile"):
            call(*inputs)
    except RuntimeError as error:
        if "recompile" not in str(error):
            raise
        return True
    return False


@is_property(
    cause="The graph breaks: parts of the call run in Python.",
    fix="Run it with TORCH_LOGS=graph_breaks: the log names the line that breaks it.",
    is_slow=True,
    needs=("unmutated",),
)
def graph_breaks(subject: Subject, findings: Findings) -> None:
    """The compiler never gives up and returns to Python."""
    with fresh_compiler():
        for inputs in subject.cases():
            breaks = _torch.graph_break_reasons(subject.call, new_leaves(inputs))
            for reason in map(str, breaks):
                if why := refusal(reason, TRACING):
                    raise NotApplicable(why)
                findings.fail(f"the graph breaks: {error_line(reason)}", inputs)
            findings.note(f"{sum(breaks.values())} breaks")


@is_property(
    cause="The compiled form of torch.func.grad computes something else.",
    fix="While torch.compiler.is_compiling(), pass inputs to apply as t.view_as(t): torch may set ctx.needs_input_grad "
    "to False by mistake.",
    is_slow=True,
    needs=("func_grad", "compiled"),
    refusals=(COMBINED_FORWARD, *TRACING),
)
def compiled_func_grad(subject: Subject, findings: Findings) -> None:
    """torch.compile of torch.func.grad gives the same gradients."""
    with fresh_compiler():
        for inputs in subject.cases():
            weights = subject.grad_outputs(outputs_of(subject.call, inputs))
            of_gradients = torch.func.grad(scalar_of(subject.call, weights), argnums=positions_requiring_grad(inputs))
            expected = of_gradients(*detached(inputs))
            call = torch.compile(of_gradients, fullgraph=True, backend=BACKEND)
            findings.compare("gradient", call(*detached(inputs)), expected, inputs, "with torch.func.grad compiled")


@is_property(
    cause="torch.export cannot trace the forward, or the exported program computes something else.",
    fix="Do not branch on values; give custom operators a register_fake.",
    is_slow=True,
    needs=("unmutated",),
    refusals=TRACING,
)
def exported(subject: Subject, findings: Findings) -> None:
    """The exported program gives the same values for these inputs."""
    for inputs in subject.cases():
        plain = tensors_only(inputs)
        with torch.no_grad():
            program = torch.export.export(CallModule(subject.call), plain)
            given = outputs_of(program.module(), plain)
            findings.compare("value", given, outputs_of(subject.call, plain), inputs, "exported")


@is_property(
    cause="The ONNX file computes something else than the call.",
    fix="Write the forward in torch operations that ONNX has, with the same formula for every exporter.",
    is_slow=True,
    needs=("exported",),
    refusals=(NO_OPERATOR, *TRACING),
)
def onnx(subject: Subject, findings: Findings) -> None:
    """The ONNX file, run by onnxruntime in float32, gives the same values."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotApplicable(f"it needs packages that are not installed: {', '.join(missing)}")
    import onnxruntime

    for inputs in subject.cases(torch.float32):
        plain = tensors_only(inputs)
        if any(t.is_complex() for t in plain):
            raise NotApplicable("onnxruntime does not support complex numbers")
        with torch.no_grad(), quiet(*ONNX_LOGGERS), tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/call.onnx"
            torch.onnx.export(CallModule(subject.call), plain, path, dynamo=True, verbose=False)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            expected = [t.cpu() for t in outputs_of(subject.call, plain)]
        names = [given.name for given in session.get_inputs()]
        results = session.run(None, dict(zip(names, (t.cpu().numpy() for t in plain), strict=False)))
        given = [t for t in map(torch.from_numpy, results) if is_floating(t)]
        truth = [t.double() for t in expected]
        findings.compare_rounded("value", given, expected, truth, torch.float32, inputs, "run by onnxruntime")


def tensors_only(inputs: Inputs) -> tuple[Tensor, ...]:
    """The inputs for an exporter, which accepts only tensors."""
    if not all(isinstance(t, Tensor) for t in inputs):
        raise NotApplicable("an argument is not a tensor")
    return detached(inputs)


@is_property(
    cause="A tensor is made on the wrong device, or the call branches on the values of its inputs.",
    fix="Make new tensors from existing ones (zeros_like, or device=grad_output.device), and do not branch on values.",
    needs=("unmutated", "saved_tensors"),
    refusals=(NO_FAKE,),
)
def fake_tensors(subject: Subject, findings: Findings) -> None:
    """Tensors without numbers: with gradients on the meta device, forward and backward on a fake CUDA device."""
    for inputs in subject.cases():
        expected = outputs_of(subject.call, inputs)
        on_meta = map_tensors(inputs, lambda t: t.to("meta"), where=lambda t: isinstance(t, Tensor))
        outputs = outputs_of(subject.call, on_meta)
        compare_device(findings, inputs, "meta", "output", outputs, expected)
        grads = gradients(subject.call, on_meta, [torch.empty_like(t) for t in outputs])
        compare_device(findings, inputs, "meta", "gradient", grads, requiring_grad(inputs))
        try:
            check_on_fake_cuda(subject, findings, inputs, expected)
        except AsksForGradientsError:
            findings.note("checked on the meta device only, because the call sets requires_grad itself")
        except (RuntimeError, AssertionError) as error:
            if not re.search(NO_CUDA, str(error)):
                raise
            findings.note("checked on the meta device only, because an operation needs a torch built with CUDA")


def check_on_fake_cuda(subject: Subject, findings: Findings, inputs: Inputs, expected: Sequence[Tensor]) -> None:
    """Forward and backward on a CUDA device that does not exist."""
    fakes = _torch.fake_tensor_mode()
    if fakes is None:
        findings.note(f"checked on the meta device only, because torch {torch.__version__} has no fake tensors")
        return
    contexts = [FakeContext(node) for node in function_nodes(expected) if not is_once_differentiable(node)]
    # Constants inside the call are real tensors, so the mode has to accept those.
    with fakes, torch.no_grad(), ForbidRequiresGrad():
        on_cuda = tuple(fake(t) if isinstance(t, Tensor) else t for t in inputs)
        compare_device(findings, inputs, "cuda", "output", outputs_of(subject.call, on_cuda), expected)
        for ctx in contexts:
            grads = ctx.gradients()
            compare_device(findings, inputs, "cuda", "gradient", grads, grads)


def compare_device(
    findings: Findings, inputs: Inputs, device: str, what: str, given: Sequence[Tensor], like: Sequence[Tensor]
) -> None:
    """The results are on the device of the inputs, and have the right shapes."""
    for position, (t, expected) in enumerate(zip(given, like, strict=True), 1):
        if t.device.type != device:
            findings.fail(f"with inputs on {device}, {what} {position} is on {t.device.type}", inputs)
        elif t.shape != expected.shape:
            findings.fail(
                f"on {device}, {what} {position} has shape {tuple(t.shape)} but should have {tuple(expected.shape)}",
                inputs,
            )
