#!/usr/bin/env python3
"""Makes static libraries that stand in for CUDA's shared ones at link time: each function looks the
real one up with dlopen and dlsym when it is first called. A program that is linked with them starts on
a machine without a driver, where every call gives the library's own "not there" status.

usage: shims.py CUDARC_SOURCE OUTPUT_FOLDER        (x86-64 Linux; needs gcc and ar)
The names of the functions are read from cudarc's bindings, so that they are those that can be called.
"""

import re
import subprocess
import sys
from pathlib import Path

# Library: bindings, prefix of its functions, soname, status that says "not there".
LIBRARIES = {
    "cuda": ("driver", "cu", "libcuda.so.1", 100),  # CUDA_ERROR_NO_DEVICE
    "cublas": ("cublas", "cublas", "libcublas.so.13", 1),  # CUBLAS_STATUS_NOT_INITIALIZED
    "cublasLt": ("cublaslt", "cublasLt", "libcublasLt.so.13", 1),
    "curand": ("curand", "curand", "libcurand.so.10", 203),  # CURAND_STATUS_INITIALIZATION_FAILED
    "nvrtc": ("nvrtc", "nvrtc", "libnvrtc.so.13", 7),  # NVRTC_ERROR_BUILTIN_OPERATION_FAILURE
}

# Registers that may carry arguments: they must survive the look-up. 136 bytes keep 8 SSE registers
# and the stack's alignment.
REGISTERS = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"]


def assembly(name, functions):
    """One trampoline a function, and the common slow path behind them."""
    lines = [".text"]
    for index, function in enumerate(functions):
        lines += [
            f".globl {function}",
            f".type {function},@function",
            ".p2align 4",
            f"{function}:",
            f" movq {name}_slots+{8 * index}(%rip),%r11",
            " testq %r11,%r11",
            " je 1f",
            " jmp *%r11",
            f"1: pushq ${index}",
            f" jmp {name}_first_call",
            f".size {function},.-{function}",
        ]
    lines.append(f"{name}_first_call:")
    lines += [f" pushq %{register}" for register in REGISTERS]
    lines.append(" subq $136,%rsp")
    lines += [f" movups %xmm{i},{16 * i}(%rsp)" for i in range(8)]
    # The index lies above what was saved.
    lines += [f" movq {136 + 8 * len(REGISTERS)}(%rsp),%rdi", f" call {name}_look_up", " movq %rax,%r11"]
    lines += [f" movups {16 * i}(%rsp),%xmm{i}" for i in range(8)]
    lines.append(" addq $136,%rsp")
    lines += [f" popq %{register}" for register in reversed(REGISTERS)]
    lines += [
        " addq $8,%rsp",
        " jmp *%r11",
        f".local {name}_slots",
        f".comm {name}_slots,{8 * len(functions)},16",
        f".globl {name}_slots_address",
        ".data",
        ".p2align 3",
        f"{name}_slots_address: .quad {name}_slots",
        '.section .note.GNU-stack,"",@progbits',
        "",
    ]
    return "\n".join(lines)


def look_up(name, functions, soname, status):
    """Opens the library once; a function that it lacks becomes one that gives the status."""
    names = ",".join(f'"{function}"' for function in functions)
    return f"""
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
extern void **{name}_slots_address;
static const char *const names[] = {{{names}}};
static void *library;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void open_library(void) {{ library = dlopen("{soname}", RTLD_NOW | RTLD_GLOBAL); }}
static int not_there(void) {{ return {status}; }}
__attribute__((visibility("hidden"))) void *{name}_look_up(size_t index) {{
    pthread_once(&once, open_library);
    void *function = library ? dlsym(library, names[index]) : NULL;
    if (!function) function = (void *)not_there;
    __atomic_store_n(&{name}_slots_address[index], function, __ATOMIC_RELEASE);
    return function;
}}
"""


def build(name, source, output):
    module, prefix, soname, status = LIBRARIES[name]
    bindings = (source / "src" / module / "sys" / "mod.rs").read_text()
    functions = sorted(set(re.findall(rf"pub unsafe fn ({prefix}[A-Za-z0-9_]+)", bindings)))
    if not functions:
        sys.exit(f"error: no function {prefix}* in cudarc's bindings of {module}")
    # Not to collide with the library's own names.
    own = f"aisemble_{name}"
    objects = []
    for suffix, text in (("s", assembly(own, functions)), ("c", look_up(own, functions, soname, status))):
        file = output / f"{own}.{suffix}"
        file.write_text(text)
        objects.append(output / f"{own}_{suffix}.o")
        subprocess.check_call(["gcc", "-O2", "-fPIC", "-c", file, "-o", objects[-1]])
        file.unlink()
    archive = output / f"lib{name}.a"
    archive.unlink(missing_ok=True)
    subprocess.check_call(["ar", "rcs", archive, *objects])
    for item in objects:
        item.unlink()
    print(f"{archive.name}: {len(functions)} functions of {soname}", file=sys.stderr)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        build(name, source, output)


main()
