"""Compile every Triton kernel for compute capability 9.0, which needs no GPU; test_triton.py runs this file.

Prints the name of each kernel whose PTX was made and holds no fused multiply-add of floating-point numbers.
"""

import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from recon_toolkit.rendering import raster_triton as grid
from recon_toolkit.rendering import raster_triton_kernels as backward
from recon_toolkit.rendering import raster_triton_kernels as draw
from recon_toolkit.rendering import raster_triton_kernels as interpolate
from recon_toolkit.rendering.raster_triton import BLOCK, OPTIONS, SMALL, TILE, WIDE_TILE
from recon_toolkit.rendering.raster_triton_kernels import SIZES

POINTERS = {"faces": "i32", "winner": "i32", "boxes": "i32", "covered": "u8", "first_faces": "i32"}
POINTERS |= dict.fromkeys(("keys", "counter", "large", "starts", "order", "offsets"), "i64")
LIMITS = {"NEAR": 1e-3, "FAR": 100.0, "TILE": TILE}
LENS = {"RAY": 40.5, "FU": 40.5, "FV": 40.5, "BLOCK": 256}


def compile_kernel(kernel, precision, constants):
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in SIZES:
            signature[name] = "i32"
        else:
            signature[name] = "*" + POINTERS.get(name, precision)
    source = ASTSource(kernel, signature, constexprs=constants)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=OPTIONS).asm["ptx"]
    assert not re.search(r"\bfma\.rn\.f(32|64)", ptx), f"{kernel.__name__} fuses multiplications and additions"
    print(kernel.__name__)


def main(precision):
    for number in (draw.PACKED,) if precision == "fp32" else (draw.DEPTH, draw.FACE):
        compile_kernel(draw.draw_small, precision, {**LIMITS, "ROUND": number, "SMALL": SMALL, "BLOCK": BLOCK})
        compile_kernel(draw.draw_large, precision, {**LIMITS, "ROUND": number})
    compile_kernel(draw.show_fragments, precision, {"BLOCK": BLOCK})
    compile_kernel(draw.show_depth, precision, {"BLOCK": BLOCK, "SAMPLES": 2})
    for samples in (0, 2):
        compile_kernel(backward.sum_small, precision, {"SAMPLES": samples, "SMALL": SMALL, "BLOCK": BLOCK})
        compile_kernel(backward.sum_large, precision, {"SAMPLES": samples, "TILE": WIDE_TILE})
    compile_kernel(backward.gather, precision, {"BLOCK": BLOCK})
    compile_kernel(interpolate.interpolate_forward, precision, {"BLOCK": BLOCK})
    compile_kernel(interpolate.interpolate_backward, precision, {"BLOCK": BLOCK})
    compile_kernel(interpolate.sum_attributes, precision, {"TILE": TILE})
    compile_kernel(grid.place_forward, precision, {**LENS, "CU": 31.5, "CV": 31.5})
    compile_kernel(grid.place_backward, precision, LENS)


if __name__ == "__main__":
    main(sys.argv[1])
