"""The backend that compiles: a bound graph becomes kernels in LLVM IR, run by all threads in one parallel region.

Read it top to bottom: `plan` (what runs in which buffer, pure data) -> `kernels` (one emitter per family) -> `loops`
(the text of the IR) -> `jit` (machine code, with `target` and the `cache` on disk) -> `team` (threads).
"""
