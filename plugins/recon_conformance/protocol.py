"""What callers rely on: images apart from each other, the same answer twice, types, sizes, and inputs left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from recon_conformance.report import CheckResult
from recon_conformance.subject import (
    DEPTH_RANGE,
    SIZE,
    Ellipsoid,
    Gradients,
    Plane,
    Registration,
    Subject,
    canonical_depth,
    pixel_grid,
    sight,
    smooth_image,
    view_of,
)
from recon_toolkit.components import describe

#: What sums in another order may differ by in float32.
ROUNDING = 1e-5


def _batch(count: int = 3, size: int = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    depths = [canonical_depth(Ellipsoid((0.012 + 0.01 * n, -0.02, 1.15)), size) for n in range(count)]
    views = [view_of(3 - 4 * n, 20 - 12 * n, 2 + 3 * n, move=(0.003 * n, 0, 0)) for n in range(count)]
    return torch.stack(depths).float(), smooth_image(count, size), torch.stack(views).float()


def _tensors(found: Gradients) -> tuple[Tensor, ...]:
    picture = found.rendering
    return (picture.image, picture.depth, picture.mask, found.depth, found.image, found.view)


def batch_independence(subject: Subject) -> CheckResult:
    """An image comes out the same alone and in company, and its gradient reaches no other."""
    result = CheckResult(
        name="batch",
        title="images of a batch are independent",
        limit=f"no image depends on another; alone as in a batch within {ROUNDING:g}",
        reason="a result that depends on its company cannot be reproduced for one photograph",
    )
    depth, image, view = _batch()
    whole = subject.gradients(depth, image, view, loss=lambda f: f.depth[0].sum() + f.image[0].sum())
    leaked = float(max(g[1:].abs().max() for g in (whole.depth, whole.image, whole.view)))
    changed = depth.clone(), image.clone(), view.clone()
    for tensor, other in zip(changed, (0.98, 0.1, 0.2), strict=True):
        tensor[1:] = other
    beside = subject.gradients(*changed, loss=lambda f: f.depth[0].sum() + f.image[0].sum())
    alone = subject.gradients(depth[:1], image[:1], view[:1])
    moved = _difference(whole, beside)
    result.measured = {
        "change with other company": moved,
        "gradient to other images": leaked,
        "change alone": _difference(whole, alone),
    }
    if moved > 0 or leaked > 0:
        result.verdict, result.cause = "fail", "an image depends on the others of its batch: something is shared by all"
        result.remedy = "look for a mean, maximum or BatchNorm over the batch, or an index that lacks the batch"
    elif _difference(whole, alone) > ROUNDING:
        result.verdict, result.cause = "warn", "an image alone comes out otherwise than in a batch"
        result.remedy = "the size of the batch decides something: a chunk, a buffer or a mean"
    return result


def _difference(one: Gradients, two: Gradients) -> float:
    """Of the first image: largest difference of depth and colours, infinite where the masks differ."""
    if not torch.equal(one.rendering.mask[0], two.rendering.mask[0]):
        return float("inf")
    pairs = ((one.rendering.depth, two.rendering.depth), (one.rendering.image, two.rendering.image))
    return max(float((a[0] - b[0]).detach().abs().max()) for a, b in pairs)


def determinism(subject: Subject) -> CheckResult:
    """Twice the same, to the last bit, gradients included."""
    result = CheckResult(
        name="determinism",
        title="the same answer twice, gradients included",
        limit="equal to the last bit",
        reason="a run that is resumed or repeated with its seed must come to the same weights",
    )
    inputs = _batch()
    runs = [_tensors(subject.gradients(*inputs)) for _ in range(3)]
    names = ("image", "depth", "mask", "gradient of depth", "gradient of the image", "gradient of view")
    differing = {}
    for index, name in enumerate(names):
        first, *rest = (run[index] for run in runs)
        if not all(torch.equal(first, other) for other in rest):
            differing[name] = max(float((first.double() - other.double()).detach().abs().max()) for other in rest)
    result.measured = dict(differing) if differing else {"largest difference": 0.0}
    if differing:
        on_gpu = subject.device.type == "cuda" and max(differing.values()) < ROUNDING
        result.verdict = "warn" if on_gpu else "fail"
        result.cause = f"not deterministic: {', '.join(differing)} differ from call to call"
        result.remedy = (
            "random numbers, dropout, or sums in no fixed order (atomic adds, threads); draw from fixed seeds"
        )
        result.ruins_training = max(differing.values()) > 1e-2
    return result


def types(subject: Subject) -> CheckResult:
    """float32 must work; float64, autocast, channel counts and parts without gradient are looked at."""
    result = CheckResult(
        name="types",
        title="float32, float64, bf16 autocast, channels, parts without gradient",
        limit="float32 in, float32 out; autocast changes depth by no more than a thousandth",
        reason="geometry needs full precision: above depth 1 a step of bfloat16 is 0.008, a twenty-fifth of the range",
    )
    depth, image, view = _batch(2)
    plain = subject(depth, image, view)
    result.measured["float64"] = "accepted" if subject.double else "not accepted, or answered in another type"
    if plain.depth.dtype != torch.float32 or plain.image.dtype != torch.float32:
        result.verdict, result.cause = (
            "fail",
            f"float32 comes out as {plain.depth.dtype} depth, {plain.image.dtype} image",
        )
        result.remedy = "keep the type of the inputs"
        return result
    problems = []
    try:
        with torch.autocast(subject.device.type, dtype=torch.bfloat16):
            found = subject.gradients(depth, image, view)
        both = found.rendering.mask & plain.mask
        off = float((found.rendering.depth.float() - plain.depth)[both].detach().abs().max()) if both.any() else 0.0
        result.measured["change under bf16 autocast"] = off
        if not found.finite() or off > 1e-3:
            problems.append("precision is lost under bf16 autocast: a matrix product runs in bfloat16")
    except Exception as error:
        problems.append(f"it raises under bf16 autocast: {describe(error)}")
    for channels in (1, 5):
        try:
            with torch.no_grad():
                subject(depth, smooth_image(2, SIZE, channels=channels), view)
        except Exception as error:
            problems.append(f"images of {channels} channels are refused: {describe(error)}")
    for name in ("depth", "image", "view"):
        inputs = {"depth": depth, "image": image, "view": view}
        inputs[name] = inputs[name].clone().to(subject.device).requires_grad_()
        try:
            picture = subject(inputs["depth"], inputs["image"], inputs["view"])
            total = picture.image.sum() + picture.depth.sum()
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            problems.append(f"it raises where only the {name} needs a gradient: {describe(error)}")
    if problems:
        result.verdict, result.cause = "warn", "; ".join(problems)
        result.remedy = "disable autocast within the renderer; take the number of channels from the image"
    return result


def sizes(subject: Subject, registration: Registration, large: int = 256) -> CheckResult:
    """Other sizes than 64, powers of two or not."""
    result = CheckResult(
        name="sizes",
        title=f"sizes 33, 100 and {large}",
        limit="a turned plane within a hundredth of the depth range, 90 % of what is seen covered",
        reason="nothing in the protocol fixes the size: pipelines use 64 to 256",
    )
    surface, view = Plane(0.2, 0.1), view_of(4, 25, -8)
    for size in dict.fromkeys((33, 100, large)):
        try:
            with torch.no_grad():
                depth = canonical_depth(surface, size)[None].float()
                found = subject(depth, smooth_image(1, size), view[None].float())
        except Exception as error:
            result.measured[f"{size}"] = describe(error)
            cause = f"pictures of {size} pixels fail: {describe(error)}"
            result.verdict, result.cause = "fail", result.cause or cause
            result.remedy = "take height and width from the canonical depth"
            continue
        truth = sight(surface, registration.turned(view), registration.where(pixel_grid(size), size), size)
        seen, mask = truth.inside > 3, found.mask[0].cpu().flatten()
        covered = float(mask[seen].double().mean())
        error_here = (found.depth[0].double().cpu().flatten() - truth.depth)[seen & mask].abs().nan_to_num(nan=9.0)
        worst = float(error_here.max()) if error_here.numel() else 0.0
        result.measured |= {f"{size}: error": worst, f"{size}: covered": covered}
        if worst > 0.01 * (DEPTH_RANGE[1] - DEPTH_RANGE[0]) or covered < 0.9:
            result.verdict = "fail"
            result.cause = f"pictures of {size} pixels come out wrong (error {worst:.2g}, {covered:.0%} covered)"
            result.remedy = "a size is fixed somewhere: take height and width from the canonical depth"
    return result


def inputs_kept(subject: Subject) -> CheckResult:
    """Inputs are not written to, and need not be contiguous."""
    result = CheckResult(
        name="inputs",
        title="inputs are left alone, and may be views of other tensors",
        limit="unchanged to the last bit; the same picture from a tensor that is not contiguous",
        reason="the same canonical depth is used again by the losses",
    )
    inputs = tuple(t.to(subject.device) for t in _batch(2))
    copies = [t.clone() for t in inputs]
    with torch.no_grad():
        plain = subject(*inputs)
    names = ("canonical depth", "canonical image", "view")
    written = [name for name, a, b in zip(names, inputs, copies, strict=True) if not torch.equal(a, b)]
    result.measured["written to"] = ", ".join(written) or "none"
    if written:
        result.verdict, result.cause = "fail", f"it writes to its input: {', '.join(written)}"
        result.remedy = "clone before clamping, padding or moving in place"
        return result
    strided = tuple(t.transpose(0, 1).contiguous().transpose(0, 1) for t in copies)
    with torch.no_grad():
        found = subject(*strided)
    off = float((found.depth - plain.depth).abs().max())
    result.measured["change with another layout"] = off
    if not off <= ROUNDING:
        result.verdict, result.cause = "fail", "a tensor that is not contiguous is read wrongly"
        result.remedy = "call contiguous() before handing memory to a kernel"
    return result


def device(subject: Subject) -> CheckResult:
    """The CPU, and CUDA where there is one."""
    result = CheckResult(
        name="device",
        title="the CPU, and CUDA where there is one",
        limit="depth within 1e-4 of the CPU's on all but a hundredth of the covered pixels",
        reason="the same pipeline trains on both; samples on edges may fall to the other face by rounding",
    )
    if not torch.cuda.is_available():
        result.measured["cpu"] = "used"
        result.cause = ""
        result.measured["cuda"] = "there is none here"
        return result
    inputs = _batch()
    with torch.no_grad():
        found = {}
        for name in ("cpu", "cuda"):
            found[name] = Subject(subject.factory, name)(*inputs)
    cpu, gpu = found["cpu"], found["cuda"]
    both = cpu.mask & gpu.mask.cpu()
    off = ((cpu.depth - gpu.depth.cpu()).abs() > 1e-4) & both
    share = float((off | (cpu.mask != gpu.mask.cpu())).double().mean())
    result.measured["differing pixels"] = share
    if gpu.depth.device.type != "cuda" or share > 0.01:
        result.verdict, result.cause = "fail", f"CUDA and the CPU differ in {share:.1%} of the pixels"
        result.remedy = "make tensors on the inputs' device, in their type"
    return result
